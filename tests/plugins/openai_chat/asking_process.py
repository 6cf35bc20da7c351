"""Asks n questions of a server, in a process of its own: `URL FOLDER N [options as JSON]`."""

import json
import sys
from pathlib import Path

from tests.plugins.openai_chat.making import make_client, questions

url, folder, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
print("ready", flush=True)
replies = make_client(url, folder, **options).ask(questions(n))
print(json.dumps([reply.text for reply in replies]), flush=True)
