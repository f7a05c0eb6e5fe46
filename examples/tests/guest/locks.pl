# What each of two guests does to the locks of one directory: `first` holds what `second` wants, and
# is taken away in the end with a lock in its hands. They tell each other by files how far they are.
#
# Nothing here ends a wait by a signal: the virtio-fs driver of Linux does not tell the host of one.
use strict;
use warnings;
use Errno qw(EAGAIN);
use Fcntl qw(:DEFAULT :flock :seek);

my ($role) = @ARGV;
my ($OFD_SETLK, $OFD_SETLKW) = (37, 38);
my $INCREMENTS = 100;

# Each takes a file, a type and whether to wait. Those of fcntl(2) lock the first ten bytes.
my %kinds = (
    flock => sub {
        my ($file, $type, $wait) = @_;
        my $operation = { read => LOCK_SH, write => LOCK_EX, none => LOCK_UN }->{$type};
        flock($file, $wait ? $operation : $operation | LOCK_NB);
    },
    posix => sub { my ($file, $type, $wait) = @_; range($file, $wait ? F_SETLKW : F_SETLK, $type, 0, 10) },
    ofd => sub { my ($file, $type, $wait) = @_; range($file, $wait ? $OFD_SETLKW : $OFD_SETLK, $type, 0, 10) },
);

sub range {
    my ($file, $command, $type, $start, $len) = @_;
    my $number = { read => F_RDLCK, write => F_WRLCK, none => F_UNLCK }->{$type};
    # struct flock of x86-64.
    my $lock = pack('s s x4 q q l x4', $number, SEEK_SET, $start, $len, 0);
    my $done = fcntl($file, $command, $lock);
    return $done && $command == F_GETLK ? (unpack('s', $lock))[0] : $done;
}

sub announce { my ($what) = @_; open(my $file, '>', "told-$what") or die "told-$what: $!" }

sub told { my ($what) = @_; -e "told-$what" }

sub await {
    my ($what) = @_;
    for (1 .. 6000) {
        return if told($what);
        select(undef, undef, undef, 0.05);
    }
    die "the other guest does not tell of $what";
}

sub opened { my ($name) = @_; sysopen(my $file, $name, O_RDWR | O_CREAT) or die "$name: $!"; $file }

sub refused {
    my ($what, $done) = @_;
    die "$what was granted" if $done;
    die "$what: $!" unless $! == EAGAIN;
}

sub hold {
    my ($kind, $lock) = @_;
    my $file = opened("$kind.lock");
    $lock->($file, 'write', 1) or die "$kind: $!";
    announce("$kind-held");
    await("$kind-waits");
    sleep(1);
    die "$kind was granted twice" if told("$kind-got");
    announce("$kind-freed");
    $lock->($file, 'none', 1) or die "$kind, unlock: $!";
    await("$kind-got");
}

sub want {
    my ($kind, $lock) = @_;
    my $file = opened("$kind.lock");
    await("$kind-held");
    refused("$kind, exclusive", $lock->($file, 'write', 0));
    refused("$kind, shared", $lock->($file, 'read', 0));
    if ($kind ne 'flock') {
        my $found = range($file, F_GETLK, 'write', 5, 10);
        die "$kind, asked for: $!" unless $found;
        die "$kind, asked for: a lock of type $found" unless $found == F_WRLCK;
        my $command = $kind eq 'ofd' ? $OFD_SETLK : F_SETLK;
        range($file, $command, 'write', 10, 10) or die "$kind, other bytes: $!";
    }
    announce("$kind-waits");
    $lock->($file, 'write', 1) or die "$kind: $!";
    die "$kind was granted too early" unless told("$kind-freed");
    announce("$kind-got");
    $lock->($file, 'none', 1) or die "$kind, unlock: $!";
}

# None is lost where each reads, adds and writes while it holds the lock.
sub count {
    my ($kind, $lock) = @_;
    my $file = opened("$kind.count");
    for (1 .. $INCREMENTS) {
        $lock->($file, 'write', 1) or die "$kind, count: $!";
        sysseek($file, 0, SEEK_SET) or die "$kind, seek: $!";
        defined(sysread($file, my $value, 100)) or die "$kind, read: $!";
        sysseek($file, 0, SEEK_SET) or die "$kind, seek: $!";
        syswrite($file, sprintf("%d\n", ($value || 0) + 1)) or die "$kind, write: $!";
        $lock->($file, 'none', 1) or die "$kind, count, unlock: $!";
    }
}

for my $kind (sort keys %kinds) {
    print "$kind\n";
    ($role eq 'first' ? \&hold : \&want)->($kind, $kinds{$kind});
    count($kind, $kinds{$kind});
}

my $file = opened('last.lock');
if ($role eq 'first') {
    $kinds{$_}->($file, 'write', 1) or die "last $_: $!" for qw(flock posix);
    announce('last-held');
    await('last-waits');
    open(my $console, '>', '/dev/console') or die "console: $!";
    print $console "guest: holding\n";
    close($console);
    sleep(1000);
} else {
    await('last-held');
    refused("last $_", $kinds{$_}->($file, 'write', 0)) for qw(flock posix);
    announce('last-waits');
    $kinds{$_}->($file, 'write', 1) or die "last $_: $!" for qw(flock posix);
}
