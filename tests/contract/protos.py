"""Checks of the gRPC contract: names, comments, and changes that break released clients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc_tools
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from harness.dev.git import run_git
from harness.runtime.compose import ROOT

FILE = "proto/inventory.proto"
BASELINE = ROOT / "proto" / "released.txtpb"
SNAKE, PASCAL = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*"), re.compile(r"([A-Z][a-z0-9]+)+")
SERVICE, RPC = 6, 2  # field numbers in a SourceCodeInfo path


def parse_proto(text: str) -> FileDescriptorProto:
    """Parse the text of a .proto file, with its comments. Raises ValueError if protoc rejects the text."""
    known = Path(grpc_tools.__file__).parent / "_proto"
    with TemporaryDirectory() as folder:
        (Path(folder) / "inventory.proto").write_text(text)
        out = Path(folder) / "set"
        options = ["--include_source_info", f"--descriptor_set_out={out}"]
        if protoc.main(["protoc", f"-I{folder}", f"-I{known}", *options, "inventory.proto"]):
            raise ValueError("protoc rejects proto/inventory.proto: see its messages above")
        return FileDescriptorSet.FromString(out.read_bytes()).file[0]


def lint(file: FileDescriptorProto) -> Iterator[str]:
    """Yield each name that breaks Google's style guide, each RPC without a comment, and a package without a version."""
    if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*\.v\d+", file.package):
        yield f"package {file.package} has no version"
    commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments}
    for message in file.message_type:
        yield from _check_names(message)
    for number, service in enumerate(file.service):
        for index, method in enumerate(service.method):
            if not PASCAL.fullmatch(method.name):
                yield f"rpc {method.name} is not PascalCase"
            if (SERVICE, number, RPC, index) not in commented:
                yield f"rpc {method.name} has no comment"


def _check_names(message: DescriptorProto) -> Iterator[str]:
    if not PASCAL.fullmatch(message.name):
        yield f"message {message.name} is not PascalCase"
    for field in message.field:
        if not SNAKE.fullmatch(field.name):
            yield f"{message.name}.{field.name} is not snake_case"


def find_breaking_changes(old: FileDescriptorProto, new: FileDescriptorProto) -> Iterator[str]:
    """Yield each change from `old` to `new` that breaks a client built from `old`."""
    if old.package != new.package:
        yield f"package {old.package} became {new.package}"
    messages = {message.name: message for message in new.message_type}
    for message in old.message_type:
        if message.name not in messages:
            yield f"message {message.name} is gone"
            continue
        yield from _compare_fields(message, messages[message.name])
    calls = {(s.name, m.name): (m.input_type, m.output_type) for s in new.service for m in s.method}
    for service in old.service:
        for method in service.method:
            if calls.get((service.name, method.name)) != (method.input_type, method.output_type):
                yield f"rpc {method.name} is gone, or has another request or response"


def _compare_fields(old: DescriptorProto, new: DescriptorProto) -> Iterator[str]:
    fields = {field.number: field for field in new.field}
    reserved = {number for span in new.reserved_range for number in range(span.start, span.end)}
    for field in old.field:
        now = fields.get(field.number)
        if now is None and field.number not in reserved:
            yield f"{old.name}.{field.name} is gone, and its number is not reserved"
        elif now is not None and (now.type, now.label, now.type_name) != (field.type, field.label, field.type_name):
            yield f"{old.name}.{field.name} has another type"


def load_released() -> Iterator[FileDescriptorProto]:
    """Yield the released versions: the committed baseline, and the last tag if this clone has tags."""
    yield text_format.Parse(BASELINE.read_text(), FileDescriptorProto())
    tag = run_git("describe", "--tags", "--abbrev=0", "--match", "v*")
    if tag and (then := run_git("show", f"{tag.strip()}:{FILE}")):
        yield parse_proto(then)


def _describe_baseline() -> str:
    now = parse_proto((ROOT / FILE).read_text())
    now.ClearField("source_code_info")
    return f"# {FILE} as last released. `python -m tests.contract.protos` writes this file at each release.\n{now}"


if __name__ == "__main__":
    BASELINE.write_text(_describe_baseline())
