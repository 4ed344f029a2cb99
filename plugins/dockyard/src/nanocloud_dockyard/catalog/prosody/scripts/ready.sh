#!/usr/bin/perl
# The server answers for its domain and offers TLS. perl-base is the smallest client that Debian's minimal set has.
use strict;
use warnings;
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => 5222, Timeout => 5) or exit 1;
print $socket "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'"
    . " to='$ENV{PROSODY_DOMAIN}'>";
alarm 5;
my $answer = "";
while ($answer !~ m{</stream:features>|</stream:stream>}) {
    sysread($socket, $answer, 4096, length $answer) or last;
}
exit($answer =~ /<starttls/ ? 0 : 1);
