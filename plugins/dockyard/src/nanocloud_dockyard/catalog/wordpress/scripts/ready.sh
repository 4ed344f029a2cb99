#!/usr/bin/perl
# nginx, PHP and the database answer together. perl-base is the smallest client that Debian's minimal set has.
use strict;
use warnings;
use IO::Socket::UNIX;
my $socket = IO::Socket::UNIX->new(Peer => "/tmp/wordpress/ready.sock", Timeout => 5) or exit 1;
print $socket "GET /ready.php HTTP/1.0\r\n\r\n";
exit((<$socket> // "") =~ m{^HTTP/1\.1 200 } ? 0 : 1);
