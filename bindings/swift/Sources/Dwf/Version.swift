import CDwf

/// The version of the C library that this program runs with, "0.1.0" say.
public let dwfVersion = String(cString: dwf_version())
