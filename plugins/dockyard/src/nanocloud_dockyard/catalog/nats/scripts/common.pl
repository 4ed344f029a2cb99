#!/usr/bin/perl
# For the binding commands, to be read with "require". USER PASSWORD_PATH [ACCOUNT] are the words of all of them.
use strict;
use warnings;

my ($command) = $0 =~ m{([^/]+)$};

sub fail {
    print STDERR "$command: @_\n";
    exit 64;
}

# USER, ACCOUNT and the path of the password.
sub arguments {
    fail("usage: $command USER PASSWORD_PATH [ACCOUNT]") if @ARGV < 2 || @ARGV > 3;
    my ($user, $path, $account) = @ARGV;
    $account = $user if !defined $account || $account eq '';
    for (['user', $user], ['account', $account]) {
        my ($what, $name) = @$_;
        fail("$what '$name' must be made of letters, digits, _ and -") if $name !~ /^[A-Za-z0-9_-]+\z/;
        fail("$what '$name' is longer than 64 characters") if length $name > 64;
        fail("$what '$name' belongs to the server") if $name eq 'nanocloud';
    }
    return ($user, $account, $path);
}

sub password {
    my ($path) = @_;
    open my $file, '<:raw', $path or fail("the password cannot be read from $path");
    read $file, my ($password), 100;
    fail('the password is empty') if $password eq '';
    fail('the password is longer than 71 bytes, which its hash cannot tell apart') if length $password > 71;
    fail('the password holds a control character') if $password =~ /[\x00-\x1f\x7f]/;
    fail('the password is not UTF-8') if !utf8::decode(my $copy = $password);
    return $password;
}

sub ask_keeper {
    my ($request) = @_;
    require IO::Socket::UNIX;
    local $SIG{ALRM} = sub { fail('the keeper of accounts does not answer') };
    alarm 60;
    my $keeper = IO::Socket::UNIX->new(Peer => '/dev/shm/nats/keeper') or fail("the keeper of accounts is not there: $!");
    print $keeper "$request\n";
    my $answer = <$keeper> // "the keeper of accounts hung up\n";
    alarm 0;
    return if $answer eq "ok\n";
    print STDERR "$command: $answer";
    exit 1;
}
1;
