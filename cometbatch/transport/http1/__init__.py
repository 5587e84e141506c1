"""HTTP/1.1 to one service: all that the rest of transport knows of it is named here, so that it can be replaced.

`Pool(route, tls)` does exchanges. `send(request, timeout_s, done)` takes the bytes of a whole request and calls
`done` once, with the whole reply or with a `NoReplyError`; it returns an exchange that can be cancelled. `whole_reply`
decodes a body within the bound of plain ones, for replies that came another way.
"""

from cometbatch.transport.http1.connection import MAX_BODY_BYTES as MAX_BODY_BYTES
from cometbatch.transport.http1.connection import NoReplyError as NoReplyError
from cometbatch.transport.http1.connection import too_large as too_large
from cometbatch.transport.http1.decompression import whole_reply as whole_reply
from cometbatch.transport.http1.pool import Done as Done
from cometbatch.transport.http1.pool import Exchange as Exchange
from cometbatch.transport.http1.pool import Pool as Pool
from cometbatch.transport.http1.pool import cancelled as cancelled
from cometbatch.transport.http1.pool import ignore as ignore
from cometbatch.transport.http1.pool import out_of_time as out_of_time
from cometbatch.transport.http1.pool import raise_open_files as raise_open_files
