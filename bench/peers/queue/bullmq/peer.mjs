// BullMQ: one Node process, as `node peer.mjs work|produce`. Its plan and its records are those of plan.py.

import { openSync, writeSync } from 'node:fs';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';

const plan = JSON.parse(process.env.PEER_PLAN);
const connection = new Redis(plan.redis_url, { maxRetriesPerRequest: null });
const CHUNK = 1000;
const CONCURRENCY = 500;
const FLUSH_MS = 10;

function dueAt(number) {
  return plan.begin_at ? plan.begin_at + number / plan.per_s : 0;
}

async function produce() {
  const queue = new Queue('bench', { connection });
  for (let first = 0; first < plan.jobs; first += CHUNK) {
    const jobs = [];
    for (let number = first; number < Math.min(first + CHUNK, plan.jobs); number += 1) {
      const delay = Math.max(0, Math.round(dueAt(number) * 1000 - Date.now()));
      jobs.push({ name: 'run', data: { number }, opts: { removeOnComplete: true, delay } });
    }
    await queue.addBulk(jobs);
  }
  await queue.close();
  connection.disconnect();
}

function work() {
  const file = openSync(plan.records, 'a');
  let values = [];
  setInterval(() => {
    if (values.length > 0) {
      writeSync(file, new Uint8Array(Float64Array.from(values).buffer));
      values = [];
    }
  }, FLUSH_MS);
  const run = async (job) => {
    values.push(job.data.number, Date.now() / 1000);
  };
  const worker = new Worker('bench', run, { connection, concurrency: CONCURRENCY });
  worker.on('error', (error) => console.error(error.message));
}

if (process.argv[2] === 'produce') {
  await produce();
} else {
  work();
}
