#!/bin/sh
# What the container runs. A node that imports definitions creates no default user (D36), so that
# RABBITMQ_DEFAULT_USER would be ignored: the user is written beside the topology and imported with it.
set -eu
definitions=/etc/rabbitmq/definitions.d

json_string() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }
user=$(json_string "${RABBITMQ_USER:?is not set}")
pass=$(json_string "${RABBITMQ_PASS:?is not set}")

umask 077
mkdir -p "$definitions"
cp /etc/rabbitmq/ticketremaster/definitions.json "$definitions/10-topology.json"
cat >"$definitions/20-user.json" <<JSON
{
  "users": [{ "name": "$user", "password": "$pass", "tags": "administrator" }],
  "permissions": [{ "user": "$user", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" }]
}
JSON
chown -R rabbitmq "$definitions"
exec docker-entrypoint.sh rabbitmq-server
