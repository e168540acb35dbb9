-- The set of leases holds one member that is no job: longer than 64 bytes, it keeps the set a skip list. As a listpack, which
-- Redis would choose up to 128 members, every lease added or removed scans the others: 4 of 16 us per job at concurrency 100.
local NO_LEASE = 'no-job:keeps-this-set-a-skip-list-because-a-listpack-is-scanned-for-each-lease'
