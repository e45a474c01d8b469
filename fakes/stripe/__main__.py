"""`python -m fakes.stripe` with PORT (6002), BIND, LOG_LEVEL, STRIPE_SECRET_KEY, STRIPE_WEBHOOK_URL and
STRIPE_WEBHOOK_SECRET. Without STRIPE_SECRET_KEY, any test key is accepted."""

from fakes.serve import serve
from fakes.stripe.app import SERVICE, create_app

serve(SERVICE, 6002, create_app)
