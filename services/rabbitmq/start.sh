#!/bin/sh
# The entrypoint of the container. RabbitMQ creates no default user when it imports definitions, so it would ignore
# RABBITMQ_DEFAULT_USER (D36). This script therefore writes the user to a second file, which is imported too. It begins
# as root, because the folders of a tmpfs belong to root.
set -eu
definitions=/etc/rabbitmq/definitions.d

refuse_placeholder() {
    case "$(printf '%s' "$2" | tr '[:upper:]' '[:lower:]')" in
    change_me* | changeme* | your_* | *...)
        echo "configuration: $1 still holds its placeholder: put a real value there" >&2
        exit 1
        ;;
    esac
}

json_string() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }
user=$(json_string "${RABBITMQ_USER:?is not set}")
pass=$(json_string "${RABBITMQ_PASS:?is not set}")
refuse_placeholder RABBITMQ_USER "$RABBITMQ_USER"
refuse_placeholder RABBITMQ_PASS "$RABBITMQ_PASS"

umask 077
mkdir -p "$definitions"
cp /etc/rabbitmq/ticketremaster/definitions.json "$definitions/10-topology.json"
cat >"$definitions/20-user.json" <<JSON
{
  "users": [{ "name": "$user", "password": "$pass", "tags": "administrator" }],
  "permissions": [{ "user": "$user", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*" }]
}
JSON
chown -R rabbitmq "$definitions" /var/log/rabbitmq
exec docker-entrypoint.sh rabbitmq-server
