"""The contract, through `curl --digest`: a process a request."""

import subprocess

import contract


def login(public, private):
    # On standard input, where no process list shows it.
    config = f'user = "{public}:{private}"\n'

    def send(method, url, headers, body):
        command = ["curl", "--config", "-", "--digest", "--silent", "--show-error", "--max-time", "20"]
        command += ["--include", "--request", method, url]
        for name, value in headers.items():
            command += ["--header", f"{name}: {value}"]
        if body is not None:
            command += ["--data", body]
        rest = subprocess.run(command, input=config, stdout=subprocess.PIPE, text=True, check=True, timeout=30).stdout
        # The challenge comes first; its body is not printed.
        while rest.startswith("HTTP/"):
            head, _, rest = rest.partition("\n\n")
        status, *lines = head.splitlines()
        return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), rest

    return send


version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
contract.run(" ".join(version.split()[:2]), login)
