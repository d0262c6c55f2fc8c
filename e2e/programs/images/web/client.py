"""Loads a web service: client.py URL NAME CONNECTIONS

Each connection sends one request after the other, never the same twice. It ends when there is a file /tmp/stop, with a
line of JSON: how many answers there were by their text, and everything that was no answer. It fails if there was such.
"""

import collections
import json
import os
import sys
import threading
import time
import urllib.request

PAUSE = 0.03

url, name, connections = sys.argv[1], sys.argv[2], int(sys.argv[3])
lock = threading.Lock()
answers, failures = collections.Counter(), []


def load(connection):
    number = 0
    while not os.path.exists("/tmp/stop"):
        number += 1
        key = f"{name}-{connection}-{number}"
        try:
            request = urllib.request.Request(f"{url}/{key}", method="POST", data=b"")
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read().decode()
        except Exception as error:
            with lock:
                failures.append(f"{key}: {error!r}")
            return
        with lock:
            answers[text] += 1
            if sum(answers.values()) == 1:
                print("the first answer is here")
        time.sleep(PAUSE)


threads = [threading.Thread(target=load, args=[number]) for number in range(connections)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"answers": answers, "failures": failures}))
sys.exit(1 if failures else 0)
