"""What Schemathesis must know beyond the description: how to log in, and what there is.

From the environment: `CLIENT_OWNER`, `public:private`; `CLIENT_KNOWN`, an object of path parameters'
names and lists of values; `CLIENT_KNOWN_TO_BODIES`, the same of fields; `CLIENT_ACCOUNT`, `id:secret`; and `CLIENT_PUBLISHED`, set for the published description of version 2.
"""

import json
import os

import schemathesis
from requests.auth import HTTPBasicAuth, HTTPDigestAuth

KNOWN = json.loads(os.environ["CLIENT_KNOWN"])
KNOWN_TO_BODIES = json.loads(os.environ["CLIENT_KNOWN_TO_BODIES"])
V2 = "application/vnd.atlas.2023-01-01+json"

# The values that each setting may have.
SCHEDULE = {
    "clusterCheckpointIntervalMin": [15, 30, 60],
    "dailySnapshotRetentionDays": [0, *range(3, 8), 15, 30, 60, 90, 120, 180, 360],
    "monthlySnapshotRetentionMonths": [*range(14), 18, 24, 36],
    "snapshotIntervalHours": [6, 8, 12, 24],
    "snapshotRetentionDays": [2, 3, 4, 5],
    "weeklySnapshotRetentionWeeks": [*range(9), 12, 16, 20, 24, 52],
}

OAUTH = "^/api/oauth/"
digest = schemathesis.auth.set_from_requests(HTTPDigestAuth(*os.environ["CLIENT_OWNER"].split(":")))
digest.skip_for(path_regex=OAUTH)
basic = schemathesis.auth.set_from_requests(HTTPBasicAuth(*os.environ["CLIENT_ACCOUNT"].split(":")))
basic.apply_to(path_regex=OAUTH)


def parameters(schema):
    yield from schema["components"].get("parameters", {}).values()
    for item in schema["paths"].values():
        yield from item.get("parameters", [])
        for operation in item.values():
            if isinstance(operation, dict):
                yield from operation.get("parameters", [])


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Offers what there is. Made-up ids alone would see nothing but 404; those come in negative tests."""
    for parameter in parameters(raw_schema):
        known = KNOWN.get(parameter.get("name"))
        if known and parameter["in"] == "path":
            parameter["schema"] = {"type": "string", "enum": known}
            parameter["examples"] = {"known": {"value": known[0]}}
    for item in raw_schema["paths"].values():
        for operation in item.values():
            if isinstance(operation, dict):
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    content["schema"] = spelled_out(content["schema"])
    if "CLIENT_PUBLISHED" in os.environ:
        correct(raw_schema)


def spelled_out(schema):
    """Offers what there is to the fields of a body, and makes an object of each of its forms: a form alone
    would be taken for all that there is to it."""
    fields = {}
    for name, field in schema.get("properties", {}).items():
        fields[name] = {"type": "string", "enum": KNOWN_TO_BODIES[name]} if name in KNOWN_TO_BODIES else spelled_out(field)
    if not fields:
        return dict(schema, oneOf=[spelled_out(form) for form in schema["oneOf"]]) if "oneOf" in schema else schema
    if "oneOf" not in schema:
        return dict(schema, properties=fields)
    forms = [schema["required"] + form["required"] for form in schema["oneOf"]]
    known = {"type": "object", "additionalProperties": False}
    return {"oneOf": [dict(known, required=form, properties={name: fields[name] for name in form}) for form in forms]}


def correct(schema):
    """Mends what no right server can meet."""
    components = schema["components"]
    # An ordinal within a second, given the lowest time of a date.
    del components["schemas"]["ApiBSONTimestamp"]["properties"]["increment"]["minimum"]
    # Has no highest, though the total that it goes through is an int32.
    components["parameters"]["pageNum"]["schema"]["maximum"] = 2**31 - 1
    # Which values a schedule may have is in texts alone; what is to change needs not be all; and fields
    # that are not known are refused.
    schedule = dict(components["schemas"]["ApiAtlasSnapshotSchedule"], additionalProperties=False)
    del schedule["required"]
    schedule["properties"] = {name: {"type": "integer", "enum": allowed} for name, allowed in SCHEDULE.items()}
    schedule["properties"]["pointInTimeWindowHours"] = {"type": "integer", "minimum": 1, "maximum": 8784}
    for item in schema["paths"].values():
        for content in item.get("patch", {}).get("requestBody", {}).get("content", {}).values():
            if content["schema"] == {"$ref": "#/components/schemas/ApiAtlasSnapshotSchedule"}:
                content["schema"] = schedule
    # Lists declare no 400, though their parameters have limits.
    for item in schema["paths"].values():
        item["get"]["responses"].setdefault("400", {"$ref": "#/components/responses/badRequest"})


@schemathesis.hook
def before_call(context, case, kwargs):
    """Version 2 wants to be asked for, which a description cannot say: it ignores a parameter `Accept`."""
    if case.operation.path.startswith("/api/atlas/v2/"):
        case.headers.setdefault("Accept", V2)
