"""What every client must see on one surface of the API.

A client is a function `login(public, private)` that gives `send(method, url, headers, body)`, which
gives `(status, headers, text)`. Arguments: the server's base URL and the path of the collection of
checkpoints. From the environment: `CLIENT_OWNER` and `CLIENT_READER`, each `public:private`;
`CLIENT_ACCEPT`, the media type to ask for, or nothing; `CLIENT_CLUSTER`, what errors call the cluster.

Prints one line of JSON and ends with 0, or says on standard error what was not as it should be.
"""

import json
import os
import sys

SEEDED = 250
PER_PAGE = 60
NOWHERE = "0" * 24


def same(what, got, wanted):
    if got != wanted:
        raise SystemExit(f"{what}: {got!r}, not {wanted!r}")


class Surface:
    """The collection, as one key sees it."""

    def __init__(self, send, accept):
        self.send, self.accept = send, accept

    def ask(self, method, url, status, body=None):
        """Sends a request and looks at the head of its reply; gives headers and text."""
        headers = {"Accept": self.accept} if self.accept else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        got, headers, text = self.send(method, url, headers, body)
        headers = {name.lower(): value for name, value in headers.items()}
        same(f"status of {method} {url} ({text})", got, status)
        if status == 204:
            same("body of a 204", text, "")
        else:
            success = self.accept or "application/json"
            same(f"type of {method} {url}", headers.get("content-type"), success if status < 300 else "application/json")
        return headers, text

    def get(self, url, status=200):
        return json.loads(self.ask("GET", url, status)[1])

    def refused(self, method, url, status, reason, code, detail, parameters, body=None):
        """Every field of an error's document, and no other."""
        document = json.loads(self.ask(method, url, status, body)[1])
        wanted = {"detail": detail, "error": status, "errorCode": code, "parameters": parameters, "reason": reason}
        same(f"error of {method} {url}", document, wanted)
        return document


def links_of(document):
    return {link["rel"]: link["href"] for link in document["links"]}


def all_pages(surface, collection):
    """Follows `next` from the first page to the last."""
    url, seen, pages = f"{collection}?itemsPerPage={PER_PAGE}", [], 0
    while url:
        page = surface.get(url)
        same("totalCount", page["totalCount"], SEEDED)
        for item in page["results"]:
            same("links of an item", links_of(item), {"self": f"{collection}/{item['id']}"})
        links = links_of(page)
        same("self of a page", links["self"], f"{collection}?pageNum={pages + 1}&itemsPerPage={PER_PAGE}")
        same("whether a page has a previous one", "previous" in links, pages > 0)
        seen += page["results"]
        pages += 1
        same("a list without end", pages > SEEDED, False)
        url = links.get("next")
    same("pages", pages, -(-SEEDED // PER_PAGE))
    ids = [item["id"] for item in seen]
    same("checkpoints seen", len(set(ids)), SEEDED)
    same("times that they were seen", len(ids), SEEDED)
    same("order of ids", ids, sorted(ids, reverse=True))
    started = [item["started"] for item in seen]
    same("order in time", started, sorted(started, reverse=True))
    return seen


def read(surface, collection, cluster):
    first = surface.get(collection)
    same("fields of a list", list(first), ["links", "results", "totalCount"])
    same("length of a list", len(first["results"]), 100)
    same("links of a list", list(links_of(first)), ["self", "next"])
    seen = all_pages(surface, collection)
    same("the first of all pages", seen[:100], first["results"])

    newest = seen[0]
    url = f"{collection}/{newest['id']}"
    compact = surface.ask("GET", url, 200)[1]
    one = json.loads(compact)
    same("a checkpoint and its item", {**one, "links": 0}, {**newest, "links": 0})
    above = collection.rsplit("/", 1)[0]
    links = {
        "self": collection,
        "http://mms.mongodb.com/cluster": above,
        "http://mms.mongodb.com/group": above.rsplit("/", 2)[0],
    }
    same("links of a checkpoint", links_of(one), links)

    detail = f"No checkpoint with ID {NOWHERE} exists for cluster {cluster}."
    nothing = ("GET", f"{collection}/{NOWHERE}", 404, "Not Found", "CHECKPOINT_NOT_FOUND", detail, [NOWHERE, cluster])
    error = surface.refused(*nothing)

    same("an envelope", surface.get(f"{url}?envelope=true"), {"content": one, "status": 200})
    same("an envelope of a list", surface.get(f"{collection}?envelope=true")["status"], 200)
    wrapped = surface.get(f"{collection}/{NOWHERE}?envelope=true", 404)
    same("an envelope of an error", wrapped, {"content": error, "status": 404})

    pretty = surface.ask("GET", f"{url}?pretty=true", 200)[1]
    same("what pretty=true says", json.loads(pretty), one)
    same("how pretty=true begins", pretty.splitlines()[:2], ["{", f'  "clusterId":"{one["clusterId"]}",'])
    same("lines without pretty=true", len(compact.splitlines()), 1)
    return [item["id"] for item in seen]


def write(owner, reader, collection, cluster, oldest):
    group = collection.split("/groups/")[1].split("/")[0]
    forbidden = (403, "Forbidden", "ACCESS_FORBIDDEN", f"This API key may not do this in group {group}.", [group])
    reader.refused("POST", collection, *forbidden, body="{}")

    headers, text = owner.ask("POST", collection, 201, body="{}")
    created = json.loads(text)["id"]
    same("Location", headers.get("location"), f"{collection}/{created}")
    same("what is at Location", owner.get(headers["location"])["id"], created)
    # Its cluster cannot be reached, which takes longer to find out than it takes to come here.
    detail = f"Checkpoint {created} of cluster {cluster} is not yet finished."
    under_way = (409, "Conflict", "CHECKPOINT_IN_PROGRESS", detail, [created, cluster])
    owner.refused("POST", collection, *under_way, body="{}")
    owner.refused("DELETE", f"{collection}/{created}", *under_way)

    owner.ask("DELETE", f"{collection}/{oldest}", 204)
    detail = f"No checkpoint with ID {oldest} exists for cluster {cluster}."
    gone = (404, "Not Found", "CHECKPOINT_NOT_FOUND", detail, [oldest, cluster])
    owner.refused("GET", f"{collection}/{oldest}", *gone)
    return created


def run(client, login):
    base, path = sys.argv[1:]
    collection, cluster = base + path, os.environ["CLIENT_CLUSTER"]
    owner, reader = (
        Surface(login(*os.environ[name].split(":")), os.environ["CLIENT_ACCEPT"])
        for name in ("CLIENT_OWNER", "CLIENT_READER")
    )
    seen = read(reader, collection, cluster)
    created = write(owner, reader, collection, cluster, seen[-1])
    print(json.dumps({"client": client, "seen": seen, "created": created, "deleted": seen[-1]}))
