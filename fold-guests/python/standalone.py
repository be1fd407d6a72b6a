"""A fold visitor that counts files, as an ordinary program: requests on standard output, responses on
standard input, a JSON object per line."""

import base64
import json
import sys


def call(**request):
    print(json.dumps(request), flush=True)
    response = json.loads(sys.stdin.readline())
    if "error" in response:
        sys.exit(response["error"])
    return response


def entries(hash):
    return {entry["name"]: entry for entry in call(op="tree", hash=hash)["entries"]}


args = entries(call(op="job")["args"])
count = 1
if args["in"]["kind"] == "tree":
    children = entries(args["children"]["hash"]).values()
    contents = [call(op="get", hash=child["hash"])["bytes_b64"] for child in children]
    count = sum(int(base64.b64decode(content)) for content in contents)
result = base64.b64encode(b"%d\n" % count).decode()
call(op="out", kind="blob", hash=call(op="put_blob", bytes_b64=result)["hash"])
