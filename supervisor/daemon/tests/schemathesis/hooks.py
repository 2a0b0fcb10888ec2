"""What schemathesis is told of Berth's API beside its documents."""
import schemathesis

schemathesis.serializer.alias("application/apply-patch+yaml", "application/yaml")

# What the world of the test has, and something that it has not.
NAMES = ["web", "db", "absent"]


def choose(text):
    """One of the names, the same each time for the same text: hypothesis has to be able to repeat what it did."""
    return NAMES[len(str(text)) % len(NAMES)]


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Most requests are about something that is there; the phase `coverage` sends what it likes."""
    for place, text in (path_parameters or {}).items():
        path_parameters[place] = "default" if place == "namespace" else choose(text)
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """An object that agrees with its path gets as far as the rules of its kind."""
    if isinstance(body, dict) and isinstance(body.get("metadata"), dict):
        for field in ["apiVersion", "kind"]:
            body.pop(field, None)
        for field in ["namespace", "resourceVersion", "uid", "managedFields"]:
            body["metadata"].pop(field, None)
        name = body["metadata"].pop("name", None)
        if context.operation.method.upper() == "POST":
            body["metadata"]["name"] = choose(name)
    return body


@schemathesis.hook
def before_call(context, case, kwargs):
    """A watch is a stream: it goes on. And most deletions are rehearsals, or soon there would be nothing to ask about."""
    if isinstance(case.query, dict):
        case.query.pop("watch", None)
    if case.method.upper() == "DELETE" and (case.path_parameters or {}).get("name") != "db":
        case.query = {"dryRun": "All", **(case.query or {})}
