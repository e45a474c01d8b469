"""The five services, and what they share."""

import os

# gRPC reads this when it is imported. Its own lines are no JSON, and its errors reach the services as exceptions.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
