// Reads a JSON list of TraceQL queries and prints those that are none, as JSON: what stands where the grammar does not know on.
import { readFileSync } from "node:fs";
import { parser } from "@grafana/lezer-traceql";

const found = {};
for (const query of JSON.parse(readFileSync(0, "utf8"))) {
  parser.parse(query).iterate({
    enter(node) {
      if (node.type.isError && !(query in found)) found[query] = query.slice(node.from);
    },
  });
}
process.stdout.write(JSON.stringify(found));
