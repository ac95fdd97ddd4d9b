"""Validates events, one a line, against the published schema of the version that they name."""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

validators = {}
count = 0
for line in sys.stdin:
    event = json.loads(line)
    version, profiles = event["metadata"]["version"], event["metadata"].get("profiles", [])
    which = (version, event["class_uid"], tuple(profiles))
    if which not in validators:
        schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
        name = schema.lookup_class_name_from_uid(event["class_uid"])
        validators[which] = Draft202012Validator(schema.get_class_schema(name, list(profiles)))
    for error in validators[which].iter_errors(event):
        print(f"{list(error.absolute_path)}: {error.message}: {line.strip()}")
    count += 1
print(f"{count} events of {len(validators)} classes")
