#!/usr/bin/perl
# The server listens once it has its data and its place in the cluster; that it answers is asked by the one request that
# needs no account, ApiVersions. Frame: length, key 18, version 0, correlation id, no client's name.
use strict;
use warnings;
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => 19092, Timeout => 5)
    or die "the server does not listen yet\n";
$SIG{ALRM} = sub { die "the server does not answer\n" };
alarm 8;
print $socket pack("N n n N n", 10, 18, 0, 1, 0xffff);
my $answer = "";
while (length $answer < 10) {
    read($socket, $answer, 10 - length $answer, length $answer) or die "the server closed the connection\n";
}
my (undef, $id, $error) = unpack("N N n", $answer);
exit($id == 1 && $error == 0 ? 0 : 1);
