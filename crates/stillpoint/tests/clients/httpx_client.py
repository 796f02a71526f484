"""The contract, through `httpx`."""

import httpx

import contract


def login(public, private):
    client = httpx.Client(auth=httpx.DigestAuth(public, private), timeout=20)

    def send(method, url, headers, body):
        reply = client.request(method, url, headers=headers, content=body)
        return reply.status_code, reply.headers, reply.text

    return send


contract.run(f"httpx {httpx.__version__}", login)
