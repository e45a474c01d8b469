import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Refusal(_message.Message):
    __slots__ = ("code", "message", "details_json")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    details_json: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., details_json: _Optional[str] = ...) -> None: ...

class ReserveSeatRequest(_message.Message):
    __slots__ = ("seat_id", "user_id", "hold_id", "ttl_seconds", "replaces_hold_id")
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    TTL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    REPLACES_HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    user_id: str
    hold_id: str
    ttl_seconds: int
    replaces_hold_id: str
    def __init__(self, seat_id: _Optional[str] = ..., user_id: _Optional[str] = ..., hold_id: _Optional[str] = ..., ttl_seconds: _Optional[int] = ..., replaces_hold_id: _Optional[str] = ...) -> None: ...

class Hold(_message.Message):
    __slots__ = ("seat_id", "hold_id", "event_id", "category", "row_number", "seat_number", "held_until")
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    ROW_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEAT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    HELD_UNTIL_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    hold_id: str
    event_id: str
    category: str
    row_number: str
    seat_number: int
    held_until: _timestamp_pb2.Timestamp
    def __init__(self, seat_id: _Optional[str] = ..., hold_id: _Optional[str] = ..., event_id: _Optional[str] = ..., category: _Optional[str] = ..., row_number: _Optional[str] = ..., seat_number: _Optional[int] = ..., held_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class ReleaseSeatRequest(_message.Message):
    __slots__ = ("seat_id", "hold_id")
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    hold_id: str
    def __init__(self, seat_id: _Optional[str] = ..., hold_id: _Optional[str] = ...) -> None: ...

class Released(_message.Message):
    __slots__ = ("seat_id", "released")
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    released: bool
    def __init__(self, seat_id: _Optional[str] = ..., released: _Optional[bool] = ...) -> None: ...

class ConfirmSeatRequest(_message.Message):
    __slots__ = ("key", "seat_id", "hold_id", "order_id", "user_id", "price", "qr_code_hash")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    PRICE_FIELD_NUMBER: _ClassVar[int]
    QR_CODE_HASH_FIELD_NUMBER: _ClassVar[int]
    key: str
    seat_id: str
    hold_id: str
    order_id: str
    user_id: str
    price: str
    qr_code_hash: str
    def __init__(self, key: _Optional[str] = ..., seat_id: _Optional[str] = ..., hold_id: _Optional[str] = ..., order_id: _Optional[str] = ..., user_id: _Optional[str] = ..., price: _Optional[str] = ..., qr_code_hash: _Optional[str] = ...) -> None: ...

class UpdateOwnerRequest(_message.Message):
    __slots__ = ("key", "seat_id", "order_id", "expected_owner_id", "new_owner_id", "qr_code_hash", "is_return")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    NEW_OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    QR_CODE_HASH_FIELD_NUMBER: _ClassVar[int]
    IS_RETURN_FIELD_NUMBER: _ClassVar[int]
    key: str
    seat_id: str
    order_id: str
    expected_owner_id: str
    new_owner_id: str
    qr_code_hash: str
    is_return: bool
    def __init__(self, key: _Optional[str] = ..., seat_id: _Optional[str] = ..., order_id: _Optional[str] = ..., expected_owner_id: _Optional[str] = ..., new_owner_id: _Optional[str] = ..., qr_code_hash: _Optional[str] = ..., is_return: _Optional[bool] = ...) -> None: ...

class CancelSaleRequest(_message.Message):
    __slots__ = ("key", "seat_id", "order_id", "expected_owner_id")
    KEY_FIELD_NUMBER: _ClassVar[int]
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    key: str
    seat_id: str
    order_id: str
    expected_owner_id: str
    def __init__(self, key: _Optional[str] = ..., seat_id: _Optional[str] = ..., order_id: _Optional[str] = ..., expected_owner_id: _Optional[str] = ...) -> None: ...

class Sale(_message.Message):
    __slots__ = ("seat_id", "order_id", "owner_user_id")
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    order_id: str
    owner_user_id: str
    def __init__(self, seat_id: _Optional[str] = ..., order_id: _Optional[str] = ..., owner_user_id: _Optional[str] = ...) -> None: ...

class SettleRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: str
    def __init__(self, key: _Optional[str] = ...) -> None: ...

class Settlement(_message.Message):
    __slots__ = ("done",)
    DONE_FIELD_NUMBER: _ClassVar[int]
    done: bool
    def __init__(self, done: _Optional[bool] = ...) -> None: ...

class ListEffectsRequest(_message.Message):
    __slots__ = ("keys", "after", "max_age", "min_age")
    KEYS_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_FIELD_NUMBER: _ClassVar[int]
    MIN_AGE_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[str]
    after: str
    max_age: float
    min_age: float
    def __init__(self, keys: _Optional[_Iterable[str]] = ..., after: _Optional[str] = ..., max_age: _Optional[float] = ..., min_age: _Optional[float] = ...) -> None: ...

class Effects(_message.Message):
    __slots__ = ("outcomes", "next")
    class OutcomesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.ScalarMap[str, str]
    next: str
    def __init__(self, outcomes: _Optional[_Mapping[str, str]] = ..., next: _Optional[str] = ...) -> None: ...

class SeatRequest(_message.Message):
    __slots__ = ("seat_id",)
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    def __init__(self, seat_id: _Optional[str] = ...) -> None: ...

class Seat(_message.Message):
    __slots__ = ("seat_id", "event_id", "status", "owner_user_id", "order_id", "row_number", "seat_number", "category", "price_paid", "held_until", "held_by_user_id", "hold_id")
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    OWNER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    ROW_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEAT_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CATEGORY_FIELD_NUMBER: _ClassVar[int]
    PRICE_PAID_FIELD_NUMBER: _ClassVar[int]
    HELD_UNTIL_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_USER_ID_FIELD_NUMBER: _ClassVar[int]
    HOLD_ID_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    event_id: str
    status: str
    owner_user_id: str
    order_id: str
    row_number: str
    seat_number: int
    category: str
    price_paid: str
    held_until: _timestamp_pb2.Timestamp
    held_by_user_id: str
    hold_id: str
    def __init__(self, seat_id: _Optional[str] = ..., event_id: _Optional[str] = ..., status: _Optional[str] = ..., owner_user_id: _Optional[str] = ..., order_id: _Optional[str] = ..., row_number: _Optional[str] = ..., seat_number: _Optional[int] = ..., category: _Optional[str] = ..., price_paid: _Optional[str] = ..., held_until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., held_by_user_id: _Optional[str] = ..., hold_id: _Optional[str] = ...) -> None: ...

class ScanFacts(_message.Message):
    __slots__ = ("scan_id", "staff_id", "hall_id_presented", "hall_id_expected", "hall_id_staff", "event_id_staff")
    SCAN_ID_FIELD_NUMBER: _ClassVar[int]
    STAFF_ID_FIELD_NUMBER: _ClassVar[int]
    HALL_ID_PRESENTED_FIELD_NUMBER: _ClassVar[int]
    HALL_ID_EXPECTED_FIELD_NUMBER: _ClassVar[int]
    HALL_ID_STAFF_FIELD_NUMBER: _ClassVar[int]
    EVENT_ID_STAFF_FIELD_NUMBER: _ClassVar[int]
    scan_id: str
    staff_id: str
    hall_id_presented: str
    hall_id_expected: str
    hall_id_staff: str
    event_id_staff: str
    def __init__(self, scan_id: _Optional[str] = ..., staff_id: _Optional[str] = ..., hall_id_presented: _Optional[str] = ..., hall_id_expected: _Optional[str] = ..., hall_id_staff: _Optional[str] = ..., event_id_staff: _Optional[str] = ...) -> None: ...

class MarkCheckedInRequest(_message.Message):
    __slots__ = ("seat_id", "order_id", "expected_owner_id", "facts")
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    ORDER_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_OWNER_ID_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    order_id: str
    expected_owner_id: str
    facts: ScanFacts
    def __init__(self, seat_id: _Optional[str] = ..., order_id: _Optional[str] = ..., expected_owner_id: _Optional[str] = ..., facts: _Optional[_Union[ScanFacts, _Mapping]] = ...) -> None: ...

class LogEntryRequest(_message.Message):
    __slots__ = ("seat_id", "result", "facts")
    SEAT_ID_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FACTS_FIELD_NUMBER: _ClassVar[int]
    seat_id: str
    result: str
    facts: ScanFacts
    def __init__(self, seat_id: _Optional[str] = ..., result: _Optional[str] = ..., facts: _Optional[_Union[ScanFacts, _Mapping]] = ...) -> None: ...

class Scan(_message.Message):
    __slots__ = ("result", "scanned_at", "first_scanned_at", "first_staff_id")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    SCANNED_AT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SCANNED_AT_FIELD_NUMBER: _ClassVar[int]
    FIRST_STAFF_ID_FIELD_NUMBER: _ClassVar[int]
    result: str
    scanned_at: _timestamp_pb2.Timestamp
    first_scanned_at: _timestamp_pb2.Timestamp
    first_staff_id: str
    def __init__(self, result: _Optional[str] = ..., scanned_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., first_scanned_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., first_staff_id: _Optional[str] = ...) -> None: ...

class ListTicketsRequest(_message.Message):
    __slots__ = ("owner_user_id", "sold_seat_ids")
    OWNER_USER_ID_FIELD_NUMBER: _ClassVar[int]
    SOLD_SEAT_IDS_FIELD_NUMBER: _ClassVar[int]
    owner_user_id: str
    sold_seat_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, owner_user_id: _Optional[str] = ..., sold_seat_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Tickets(_message.Message):
    __slots__ = ("seats", "sold")
    SEATS_FIELD_NUMBER: _ClassVar[int]
    SOLD_FIELD_NUMBER: _ClassVar[int]
    seats: _containers.RepeatedCompositeFieldContainer[Seat]
    sold: _containers.RepeatedCompositeFieldContainer[Seat]
    def __init__(self, seats: _Optional[_Iterable[_Union[Seat, _Mapping]]] = ..., sold: _Optional[_Iterable[_Union[Seat, _Mapping]]] = ...) -> None: ...
