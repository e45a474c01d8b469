"""`python -m fakes.smu` with PORT (6001), BIND, SMU_API_KEY (checked if set) and LOG_LEVEL."""

from fakes.serve import serve
from fakes.smu.app import SERVICE, create_app

serve(SERVICE, 6001, create_app)
