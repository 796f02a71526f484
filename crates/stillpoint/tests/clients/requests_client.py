"""The contract, through `requests`."""

import requests
from requests.auth import HTTPDigestAuth

import contract


def login(public, private):
    session = requests.Session()
    session.auth = HTTPDigestAuth(public, private)

    def send(method, url, headers, body):
        reply = session.request(method, url, headers=headers, data=body, timeout=20)
        return reply.status_code, reply.headers, reply.text

    return send


contract.run(f"requests {requests.__version__}", login)
