"""Envoy's official messages, for whoever asks as Envoy does and for whoever checks what we say.

`envoy_schema.binpb` holds the descriptors that the packages `xds-protos` 1.85.0 and `grpcio-health-checking` 1.85.1
generate their classes from, and nothing else. The packages themselves bring other versions of files that the
product installs (`google/api`, `opentelemetry/proto`), so they stay out of this environment. In one of their own:

    python tests/envoy_schema.py

writes the file anew.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FILE = Path(__file__).with_suffix(".binpb")
MODULES = (
    "envoy.service.accesslog.v3.als_pb2",
    "envoy.service.auth.v3.external_auth_pb2",
    "envoy.service.ratelimit.v3.rls_pb2",
    "grpc_health.v1.health_pb2",
)


def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(FILE.read_bytes()).file:
        pool.Add(file)
    return pool


_POOL = _pool()


def message(name: str) -> Any:
    """The class of a message, such as `envoy.service.auth.v3.CheckRequest`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


def write() -> None:
    """Collect the descriptors of the modules and of all that they need."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(descriptor: Any) -> None:
        if descriptor.name not in files:
            for needed in descriptor.dependencies:
                add(needed)
            files[descriptor.name] = descriptor_pb2.FileDescriptorProto()
            descriptor.CopyToProto(files[descriptor.name])

    for module in MODULES:
        add(importlib.import_module(module).DESCRIPTOR)
    FILE.write_bytes(descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString())


if __name__ == "__main__":
    write()
