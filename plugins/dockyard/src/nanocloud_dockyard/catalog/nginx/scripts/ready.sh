#!/usr/bin/perl
# The server answers, not only listens. perl-base is the smallest client that Debian's minimal set has.
use strict;
use warnings;
use IO::Socket::UNIX;
my $socket = IO::Socket::UNIX->new(Peer => "/tmp/nginx/ready.sock", Timeout => 5) or exit 1;
print $socket "GET / HTTP/1.0\r\n\r\n";
exit((<$socket> // "") =~ m{^HTTP/1\.1 204 } ? 0 : 1);
