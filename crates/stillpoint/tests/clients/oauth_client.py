"""A service account, through `requests`: a token, the list with it on version 2, and its end."""

import json
import os
import sys

import requests

base, path = sys.argv[1:]
account = tuple(os.environ["CLIENT_ACCOUNT"].split(":"))
V2 = {"Accept": "application/vnd.atlas.2023-01-01+json"}


def oauth(what, form, who=account):
    return requests.post(f"{base}/api/oauth/{what}", data=form, auth=who, timeout=20)


def same(what, found, wanted):
    assert found == wanted, f"{what}: {found!r} is not {wanted!r}"


grant = oauth("token", {"grant_type": "client_credentials"})
same("status of a grant", grant.status_code, 200)
same("fields of a grant", list(grant.json()), ["access_token", "expires_in", "token_type"])
token = grant.json()["access_token"]


def get(url):
    return requests.get(url, headers={**V2, "Authorization": f"Bearer {token}"}, timeout=20)


seen = []
url = f"{base}{path}?itemsPerPage=100"
while url:
    page = get(url)
    same("status of a page", page.status_code, 200)
    seen += [item["id"] for item in page.json()["results"]]
    url = next((link["href"] for link in page.json()["links"] if link["rel"] == "next"), None)

same("a wrong secret", oauth("token", {"grant_type": "client_credentials"}, (account[0], "wrong")).status_code, 401)
same("status of its end", oauth("revoke", {"token": token}).status_code, 200)
same("a token that was ended", get(f"{base}{path}").status_code, 401)
print(json.dumps({"seen": seen, "token": token}))
