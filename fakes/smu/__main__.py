"""`python -m fakes.smu`: PORT (6001), BIND, SMU_API_KEY (checked when set), LOG_LEVEL."""

from fakes.serve import serve
from fakes.smu.app import SERVICE, create_app

serve(SERVICE, 6001, create_app)
