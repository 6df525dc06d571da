"""The published Python client, as its users write: made, verified, changed, ended, listed, refused.

Environment: LISTMILL_URL, LISTMILL_ROOT_KEY. Prints "ok" at the end.
"""

import os
import time

from unkey.py import Unkey, errors
from unkey.py.utils import RetryConfig

URL = os.environ["LISTMILL_URL"]
unkey = Unkey(root_key=os.environ["LISTMILL_ROOT_KEY"], server_url=URL)


def verify(key, **more):
    data = unkey.keys.verify_key(key=key, **more).data
    assert data.valid == (data.code == "VALID"), data
    return data


def code(key, **more):
    return verify(key, **more).code


def same(got, want):
    assert got == want, f"{got!r} is not {want!r}"


def refused(kind, call, **fields):
    try:
        call(**fields)
    except kind as error:
        return error
    raise AssertionError(f"{kind} was wanted")


def now():
    return int(time.time() * 1000)


api = unkey.apis.create_api(name="payments").data.api_id
same(unkey.apis.get_api(api_id=api).data.name, "payments")

made = unkey.keys.create_key(
    api_id=api,
    prefix="prod",
    name="Ada's key",
    byte_length=32,
    external_id="user_1",
    meta={"plan": "pro", "limits": {"seats": 5}},
    roles=["admin"],
    permissions=["documents.read", "users.*"],
    expires=now() + 3_600_000,
    credits={"remaining": 10, "refill": {"interval": "monthly", "amount": 100, "refill_day": 15}},
    ratelimits=[{"name": "requests", "limit": 50, "duration": 60_000, "auto_apply": True}],
)
assert made.meta.request_id.startswith("req_")
key_id, key = made.data.key_id, made.data.key
assert key.startswith("prod_")

verified = verify(key, permissions="documents.read AND (users.view OR nothing)", tags=["a=b"])
same((verified.code, verified.key_id, verified.credits), ("VALID", key_id, 9))
same(verified.meta, {"plan": "pro", "limits": {"seats": 5}})
same(verified.identity.external_id, "user_1")
same((verified.ratelimits[0].remaining, verified.ratelimits[0].auto_apply), (49, True))
same(code(key, permissions="documents.write"), "INSUFFICIENT_PERMISSIONS")
same(code(key, credits={"cost": 100}), "USAGE_EXCEEDED")
limited = [{"name": "own", "limit": 1, "duration": 60_000, "cost": 2}]
same(code(key, ratelimits=limited), "RATE_LIMITED")
same(code(key, keyspaces=[api]), "VALID")
same(code("prod_nothing"), "NOT_FOUND")

shown = unkey.keys.get_key(key_id=key_id).data
same((shown.name, shown.credits.refill.refill_day), ("Ada's key", 15))
# Its last use may be noted between the two.
said = lambda one: one.model_dump(exclude={"last_used_at"})
same(said(unkey.keys.whoami(key=key).data), said(shown))

same(unkey.keys.update_key(key_id=key_id, name=None, meta=None, credits={"remaining": 3}).data.model_dump(), {})
changed = unkey.keys.get_key(key_id=key_id).data
same((changed.name, changed.meta, changed.credits.remaining), (None, None, 3))
same(changed.identity.external_id, "user_1")
unkey.keys.update_key(key_id=key_id, enabled=False)
same(code(key), "DISABLED")
unkey.keys.update_key(key_id=key_id, enabled=True)
same(code(key), "VALID")


def change(operation, value):
    return unkey.keys.update_credits(key_id=key_id, operation=operation, value=value).data.remaining


same(change("increment", 5), 7)
same(change("decrement", 2), 5)
same(change("set", 1), 1)
same(code(key), "VALID")
same(code(key), "USAGE_EXCEEDED")
same(change("set", None), None)

rerolled = unkey.keys.reroll_key(key_id=key_id, expiration=600_000).data
assert rerolled.key_id != key_id
same((code(rerolled.key), code(key)), ("VALID", "VALID"))

plain = unkey.keys.create_key(api_id=api).data
unkey.keys.update_key(key_id=plain.key_id, expires=now() - 1)
same(code(plain.key), "EXPIRED")

seen, page = set(), unkey.apis.list_keys(api_id=api, limit=2)
while page is not None:
    body = getattr(page, "result", page)
    seen |= {one.key_id for one in body.data}
    if not body.pagination.has_more:
        break
    page = unkey.apis.list_keys(api_id=api, limit=2, cursor=body.pagination.cursor)
same(seen, {key_id, rerolled.key_id, plain.key_id})

unkey.keys.delete_key(key_id=key_id)
same((code(key), code(rerolled.key)), ("NOT_FOUND", "VALID"))

error = refused(errors.NotFoundErrorResponse, unkey.keys.get_key, key_id=key_id)
same(error.data.error.status, 404)
error = refused(errors.BadRequestErrorResponse, unkey.keys.create_key, api_id=api, recoverable=True)
same(error.data.error.errors[0].location, "body.recoverable")
stranger = Unkey(root_key="root_wrong", server_url=URL)
refused(errors.UnauthorizedErrorResponse, stranger.keys.get_key, key_id=key_id)
once = RetryConfig("none", None, False)
error = refused(
    errors.UnkeyError, unkey.keys.add_permissions, key_id=key_id, permissions=["a.b"], retries=once
)
same(error.status_code, 501)

unkey.apis.delete_api(api_id=api)
same(code(rerolled.key), "NOT_FOUND")
print("ok")
