"""Raises what is no Exception when it is imported, as extensions in Rust do."""


class PanicError(BaseException):
    """No Exception, as pyo3's."""


raise PanicError("index out of bounds")
