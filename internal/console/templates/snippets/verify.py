# Standard library only. headers: a mapping with lower-case names. body: the bytes that
# came, before anything parsed them. secret: whsec_…
import base64, hashlib, hmac, time


def verify(headers, body, secret):
    """Raises ValueError unless the request is Lockstep's."""
    id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(timestamp)) > 300:
        raise ValueError("the request is too old, or a clock is wrong")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    want = "v1," + base64.b64encode(mac.digest()).decode()
    if not any(hmac.compare_digest(one.encode(), want.encode()) for one in headers["webhook-signature"].split()):
        raise ValueError("no signature matches")
