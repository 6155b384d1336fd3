"""What the use cases need from the outside: three protocols and the values they speak in.

Values are frozen; hashes are ``bytes`` here and hex only at the borders. Times are
``float`` seconds since the Unix epoch, handed in by the caller.
"""
