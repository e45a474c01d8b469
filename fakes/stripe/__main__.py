"""`python -m fakes.stripe`: PORT (6002), BIND, STRIPE_SECRET_KEY (any test key when unset),
STRIPE_WEBHOOK_URL, STRIPE_WEBHOOK_SECRET, LOG_LEVEL."""

from fakes.serve import serve
from fakes.stripe.app import SERVICE, create_app

serve(SERVICE, 6002, create_app)
