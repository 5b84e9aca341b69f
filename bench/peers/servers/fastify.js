// Fastify and ioredis: every request is one script call, or one `consume` of rate-limiter-flexible.
//
//     node fastify.js script|limiter CALL_FILE PORT
'use strict';
const fs = require('node:fs');
const Fastify = require('fastify');
const Redis = require('ioredis').Redis;
const { RateLimiterRedis } = require('rate-limiter-flexible');

const [how, file, port] = process.argv.slice(2);
const call = JSON.parse(fs.readFileSync(file, 'utf8'));
const redis = new Redis({ host: call.host, port: call.port, enableAutoPipelining: true });
const made = `dec_${Math.floor(Date.now() / 1000).toString(16).padStart(8, '0')}`;
let count = 0;

for (const caller of Object.values(call.callers)) {
  caller.command = caller.words[0].toLowerCase();
  caller.ends = caller.body.map((text) => Buffer.from(text, 'base64'));
}

function wordsOf(caller, asked) {
  const id = Buffer.from(made + (count++).toString(16).padStart(24, '0'));
  const put = {
    '@body': Buffer.concat([caller.ends[0], id, caller.ends[1]]),
    '@feature': asked.feature,
    '@quantity': asked.quantity ?? 1,
  };
  return caller.words.slice(1).map((word) => put[word] ?? word);
}

async function byScript(asked) {
  const caller = call.callers[asked.key];
  const reply = await redis[caller.command](...wordsOf(caller, asked));
  return { allowed: reply === 1 || reply.includes('allowed') };
}

const limiter = new RateLimiterRedis({ storeClient: redis, points: 1e12, duration: 86400 });

async function byLimiter(asked) {
  const said = await limiter.consume(asked.key, asked.quantity ?? 1);
  return { allowed: true, remaining: said.remainingPoints };
}

const schema = {
  type: 'object',
  required: ['key', 'feature'],
  properties: { key: { type: 'string' }, feature: { type: 'string' }, quantity: { type: 'integer' } },
};
const decide = how === 'limiter' ? byLimiter : byScript;
const app = Fastify({ keepAliveTimeout: 600000 });
app.post('/v1/check', { schema: { body: schema } }, (request) => decide(request.body));
app.listen({ host: '127.0.0.1', port: Number(port) });
