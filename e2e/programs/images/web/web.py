"""A web service that keeps what it is told in three places.

POST /KEY  puts a row of that key in MariaDB, counts the request in Redis and sends a message by RabbitMQ; the answer is
           the service's version. A key may be used once.
GET /ready says whether all three can be reached.
GET /counts says how many rows of each version, counted requests and waiting messages there are.

Each worker has connections of its own. They are tried before a request begins; one that has begun is never repeated.
"""

import http.server
import json
import os
import signal
import socket
import sys
import threading

import pika
import pymysql
import redis

VERSION = os.environ.get("VERSION", "1")
WORKERS = 8
QUEUE = "requests"


class Stores:
    """The three places, as one worker reaches them."""

    def __init__(self):
        user, password = os.environ["STORE_USER"], os.environ["STORE_PASSWORD"]
        self.database = pymysql.connect(
            host="database", user=user, password=password, database="web", autocommit=True
        )
        self.cache = redis.Redis(host="cache")
        self.broker = pika.BlockingConnection(
            pika.ConnectionParameters(
                host="broker", heartbeat=0, credentials=pika.PlainCredentials(user, password)
            )
        )
        self.channel = self.broker.channel()
        self.channel.queue_declare(QUEUE, durable=True)
        # Published means kept: the broker says so.
        self.channel.confirm_delivery()

    def alive(self):
        self.database.ping(reconnect=False)
        self.cache.ping()
        # A request that the broker has to answer.
        self.channel.queue_declare(QUEUE, passive=True)

    def keep(self, key):
        with self.database.cursor() as cursor:
            cursor.execute("INSERT INTO requests (name, version) VALUES (%s, %s)", (key, VERSION))
        self.cache.incr("requests")
        persistent = pika.BasicProperties(delivery_mode=2)
        self.channel.basic_publish("", QUEUE, key.encode(), properties=persistent, mandatory=True)

    def counts(self):
        with self.database.cursor() as cursor:
            cursor.execute("SELECT version, COUNT(*) FROM requests GROUP BY version")
            rows = dict(cursor.fetchall())
        counted = int(self.cache.get("requests") or 0)
        messages = self.channel.queue_declare(QUEUE, passive=True).method.message_count
        return {"rows": rows, "counted": counted, "messages": messages}


class Handler(http.server.BaseHTTPRequestHandler):
    """One request; `server` is the worker."""

    timeout = 30

    def do_POST(self):
        self.answer(lambda stores: stores.keep(self.path[1:]) or VERSION)

    def do_GET(self):
        if self.path == "/ready":
            self.answer(lambda stores: "ready")
        elif self.path == "/counts":
            self.answer(lambda stores: json.dumps(stores.counts()))
        else:
            self.send_error(404)

    def answer(self, work):
        try:
            text = work(self.server.stores())
        except Exception as error:
            self.server.forget()
            self.send_error(503, explain=repr(error))
            print(self.command, self.path, repr(error), file=sys.stderr)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_request(self, code="-", size="-"):
        pass


class Worker(threading.Thread):
    """Takes one connection after the other, until the listener is shut."""

    def __init__(self, listener):
        super().__init__()
        self.listener = listener
        self.kept = None

    def stores(self):
        try:
            if self.kept:
                self.kept.alive()
        except Exception:
            self.forget()
        if not self.kept:
            self.kept = Stores()
        return self.kept

    def forget(self):
        self.kept = None

    def run(self):
        while True:
            try:
                connection, address = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    Handler(connection, address, self)
                except OSError as error:
                    print("a client went away:", repr(error), file=sys.stderr)


def main():
    listener = socket.create_server(("", 8080), backlog=128)
    workers = [Worker(listener) for _ in range(WORKERS)]
    # Those who are being answered get their answers.
    signal.signal(signal.SIGTERM, lambda *_: listener.shutdown(socket.SHUT_RDWR))
    for worker in workers:
        worker.start()
    print("version", VERSION, "is up")
    for worker in workers:
        worker.join()


main()
