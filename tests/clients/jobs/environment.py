"""A job's program that prints its environment as JSON: names, and digests of the values, because some are secrets."""

import hashlib
import json
import os

print(json.dumps({name: hashlib.sha256(value.encode()).hexdigest() for name, value in os.environ.items()}))
