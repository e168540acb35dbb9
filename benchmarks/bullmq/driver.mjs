// BullMQ at its defaults, with the sub-commands of drivers/eventq.py:
//   work CONCURRENCY | add N WARM | bulk N WARM JOB
import { openSync, writeSync } from "node:fs";
import { Queue, Worker } from "bullmq";

const { hostname: host, port } = new URL(process.env.BENCH_URL);
const connection = { host, port: Number(port) };
const payload = JSON.parse(process.env.BENCH_PAYLOAD);
const chunk = Number(process.env.BENCH_CHUNK);
const [command, ...rest] = process.argv.slice(2);

function work(concurrency) {
  const ticks = openSync(process.env.BENCH_TICKS, "a");
  const tick = Buffer.from(".");
  const run = async (job) => {
    if (job.name === "sleep") await new Promise((done) => setTimeout(done, 10));
    writeSync(ticks, tick);
    return true;
  };
  const worker = new Worker("bench", run, { connection: { ...connection, maxRetriesPerRequest: null }, concurrency });
  worker.on("error", (error) => console.error(error));
}

async function addEach(queue, n) {
  for (let i = 0; i < n; i++) await queue.add("noop", payload);
}

async function addBulk(queue, n, name) {
  for (let left = n; left > 0; left -= chunk)
    await queue.addBulk(Array.from({ length: Math.min(chunk, left) }, () => ({ name, data: payload })));
}

async function produce(add, n, warm) {
  const [queue, warming] = [new Queue("bench", { connection }), new Queue("warm", { connection })];
  await queue.waitUntilReady();
  await add(warming, warm);
  const before = process.cpuUsage();
  const began = process.hrtime.bigint();
  await add(queue, n);
  const wall = Number(process.hrtime.bigint() - began) / 1e9;
  const { user, system } = process.cpuUsage(before);
  console.log(JSON.stringify({ n, wall, cpu: (user + system) / 1e6 }));
  await Promise.all([queue.close(), warming.close()]);
}

const [n, warm] = rest.map(Number);
if (command === "work") work(n);
else if (command === "add") await produce(addEach, n, warm);
else if (command === "bulk") await produce((queue, count) => addBulk(queue, count, rest[2]), n, warm);
else throw new Error(`unknown command ${command}`);
