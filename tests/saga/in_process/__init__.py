"""The system in one process, for thousands of executions with faults: real code, real gRPC, a real PostgreSQL.

engine.py               runs one execution: prepare, act with faults, recover, check. Start here.
faults.py               the kinds of fault, and the plan that injects them
faulty_transports.py    HTTP, gRPC, AMQP and the journal with faults
scenarios.py            the preparation and the request of each flow
in_process_system.py    the services, the fake SMU and the orchestrators
db_fixtures.py          inserts and reads rows
db_builders.py          inserts holds, sales, transfers and disputes
process_pool.py         worker processes with a system each
test_guards.py          one test for each guard of the orchestrator
test_db_builders.py     proves that inserted rows equal the rows of real flows
"""
