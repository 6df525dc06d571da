// The published TypeScript client, as its users write: made, verified, changed, ended, listed, refused.
// Environment: LISTMILL_URL, LISTMILL_ROOT_KEY. Prints "ok" at the end.
import assert from "node:assert/strict";
import { Unkey } from "@unkey/api";
import * as errors from "@unkey/api/models/errors";

const serverURL = process.env.LISTMILL_URL;
const unkey = new Unkey({ rootKey: process.env.LISTMILL_ROOT_KEY, serverURL });
const verify = async (key, more = {}) => (await unkey.keys.verifyKey({ key, ...more })).data;
const code = async (key, more) => {
  const data = await verify(key, more);
  assert.equal(data.valid, data.code === "VALID");
  return data.code;
};

const { apiId } = (await unkey.apis.createApi({ name: "payments" })).data;
assert.equal((await unkey.apis.getApi({ apiId })).data.name, "payments");

const made = await unkey.keys.createKey({
  apiId,
  prefix: "prod",
  name: "Ada's key",
  byteLength: 32,
  externalId: "user_1",
  meta: { plan: "pro", limits: { seats: 5 } },
  roles: ["admin"],
  permissions: ["documents.read", "users.*"],
  expires: Date.now() + 3_600_000,
  credits: { remaining: 10, refill: { interval: "monthly", amount: 100, refillDay: 15 } },
  ratelimits: [{ name: "requests", limit: 50, duration: 60_000, autoApply: true }],
});
assert.match(made.meta.requestId, /^req_/);
const { keyId, key } = made.data;
assert.ok(key.startsWith("prod_"));

const verified = await verify(key, { permissions: "documents.read AND (users.view OR nothing)", tags: ["a=b"] });
assert.equal(verified.code, "VALID");
assert.equal(verified.keyId, keyId);
assert.equal(verified.credits, 9);
assert.deepEqual(verified.meta, { plan: "pro", limits: { seats: 5 } });
assert.equal(verified.identity.externalId, "user_1");
assert.equal(verified.ratelimits[0].remaining, 49);
assert.equal(verified.ratelimits[0].autoApply, true);
assert.equal(await code(key, { permissions: "documents.write" }), "INSUFFICIENT_PERMISSIONS");
assert.equal(await code(key, { credits: { cost: 100 } }), "USAGE_EXCEEDED");
const limited = { ratelimits: [{ name: "own", limit: 1, duration: 60_000, cost: 2 }] };
assert.equal(await code(key, limited), "RATE_LIMITED");
assert.equal(await code("prod_nothing"), "NOT_FOUND");

const shown = (await unkey.keys.getKey({ keyId })).data;
assert.equal(shown.name, "Ada's key");
assert.equal(shown.credits.refill.refillDay, 15);
// Its last use may be noted between the two.
const said = ({ lastUsedAt, ...rest }) => rest;
assert.deepEqual(said((await unkey.keys.whoami({ key })).data), said(shown));

await unkey.keys.updateKey({ keyId, name: null, meta: null, credits: { remaining: 3 } });
const changed = (await unkey.keys.getKey({ keyId })).data;
assert.equal(changed.name, undefined);
assert.equal(changed.meta, undefined);
assert.equal(changed.credits.remaining, 3);
assert.equal(changed.identity.externalId, "user_1");
await unkey.keys.updateKey({ keyId, enabled: false });
assert.equal(await code(key), "DISABLED");
await unkey.keys.updateKey({ keyId, enabled: true });
assert.equal(await code(key), "VALID");

const change = async (operation, value) => (await unkey.keys.updateCredits({ keyId, operation, value })).data.remaining;
assert.equal(await change("increment", 5), 7);
assert.equal(await change("decrement", 2), 5);
assert.equal(await change("set", 1), 1);
assert.equal(await code(key), "VALID");
assert.equal(await code(key), "USAGE_EXCEEDED");
assert.equal(await change("set", null), null);

const rerolled = (await unkey.keys.rerollKey({ keyId, expiration: 600_000 })).data;
assert.notEqual(rerolled.keyId, keyId);
assert.equal(await code(rerolled.key), "VALID");
assert.equal(await code(key), "VALID");

const plain = (await unkey.keys.createKey({ apiId })).data;
await unkey.keys.updateKey({ keyId: plain.keyId, expires: Date.now() - 1 });
assert.equal(await code(plain.key), "EXPIRED");

const seen = [];
let cursor;
do {
  const page = await unkey.apis.listKeys({ apiId, limit: 2, cursor });
  seen.push(...page.result.data.map((one) => one.keyId));
  cursor = page.result.pagination.hasMore ? page.result.pagination.cursor : undefined;
} while (cursor);
assert.deepEqual(seen.sort(), [keyId, rerolled.keyId, plain.keyId].sort());

await unkey.keys.deleteKey({ keyId });
assert.equal(await code(key), "NOT_FOUND");
assert.equal(await code(rerolled.key), "VALID");

await assert.rejects(unkey.keys.getKey({ keyId }), (error) => {
  assert.ok(error instanceof errors.NotFoundErrorResponse, String(error));
  assert.equal(error.error.status, 404);
  assert.match(error.meta.requestId, /^req_/);
  return true;
});
await assert.rejects(unkey.keys.createKey({ apiId, recoverable: true }), (error) => {
  assert.ok(error instanceof errors.BadRequestErrorResponse, String(error));
  assert.equal(error.error.errors[0].location, "body.recoverable");
  return true;
});
await assert.rejects(new Unkey({ rootKey: "root_wrong", serverURL }).keys.getKey({ keyId }), errors.UnauthorizedErrorResponse);
const noRetries = { retries: { strategy: "none" } };
await assert.rejects(unkey.keys.addPermissions({ keyId, permissions: ["a.b"] }, noRetries), (error) => {
  assert.equal(error.statusCode, 501);
  return true;
});

await unkey.apis.deleteApi({ apiId });
assert.equal(await code(rerolled.key), "NOT_FOUND");
console.log("ok");
