from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CatalogueRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CatalogueReply(_message.Message):
    __slots__ = ("occupations", "conditions", "vaccines")
    OCCUPATIONS_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    VACCINES_FIELD_NUMBER: _ClassVar[int]
    occupations: _containers.RepeatedCompositeFieldContainer[Term]
    conditions: _containers.RepeatedCompositeFieldContainer[Term]
    vaccines: _containers.RepeatedCompositeFieldContainer[Term]
    def __init__(self, occupations: _Optional[_Iterable[_Union[Term, _Mapping]]] = ..., conditions: _Optional[_Iterable[_Union[Term, _Mapping]]] = ..., vaccines: _Optional[_Iterable[_Union[Term, _Mapping]]] = ...) -> None: ...

class Term(_message.Message):
    __slots__ = ("code", "title")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    code: str
    title: str
    def __init__(self, code: _Optional[str] = ..., title: _Optional[str] = ...) -> None: ...

class Profile(_message.Message):
    __slots__ = ("age", "occupation", "conditions")
    AGE_FIELD_NUMBER: _ClassVar[int]
    OCCUPATION_FIELD_NUMBER: _ClassVar[int]
    CONDITIONS_FIELD_NUMBER: _ClassVar[int]
    age: int
    occupation: str
    conditions: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, age: _Optional[int] = ..., occupation: _Optional[str] = ..., conditions: _Optional[_Iterable[str]] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("vaccines",)
    VACCINES_FIELD_NUMBER: _ClassVar[int]
    vaccines: _containers.RepeatedCompositeFieldContainer[Eligible]
    def __init__(self, vaccines: _Optional[_Iterable[_Union[Eligible, _Mapping]]] = ...) -> None: ...

class Eligible(_message.Message):
    __slots__ = ("code", "title", "protects", "doses", "because")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TITLE_FIELD_NUMBER: _ClassVar[int]
    PROTECTS_FIELD_NUMBER: _ClassVar[int]
    DOSES_FIELD_NUMBER: _ClassVar[int]
    BECAUSE_FIELD_NUMBER: _ClassVar[int]
    code: str
    title: str
    protects: str
    doses: str
    because: str
    def __init__(self, code: _Optional[str] = ..., title: _Optional[str] = ..., protects: _Optional[str] = ..., doses: _Optional[str] = ..., because: _Optional[str] = ...) -> None: ...
