#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""perl and bash on Ebb: strings, tables, regular expressions, forks, pipes, subshells."""
import sysutil

PERL = r'''
    use strict; use warnings; use Digest::SHA qw(sha256_hex); use List::Util qw(sum);
    my %h; my @a; my $n = shift;
    for my $i (1 .. $n) {
        my $k = "key" . ($i * 7919 % 10007);
        push @{ $h{$k} }, "v" x ($i % 200);
        push @a, [ map { $_ * $i } 1 .. $i % 10 ];
        splice(@a, 0, 500) if @a > 1000;
        delete $h{"key" . ($i % 997)} if $i % 3 == 0;
    }
    my $text = join ",", map { "$_=" . length(join "", @{ $h{$_} }) } sort keys %h;
    (my $other = $text) =~ s/(key)(\d+)/$2-$1/g;
    my @words = sort { $b cmp $a } split /[=,]/, $other;
    my $sum = 0;
    for my $c (1 .. 8) {
        pipe(my $r, my $w) or die; my $pid = fork() // die;
        if (!$pid) { close $r; print $w sum(map { length } @words[0 .. $c * 10]); close $w; exit 0 }
        close $w; $sum += <$r>; waitpid($pid, 0); die "child: $?" if $?;
    }
    my $z = eval "[" . join(",", 1 .. 5000) . "]";
    print sha256_hex($other), " ", scalar(@words), " $sum ", sum(@$z), "\n";
'''
BASH = r'''
    declare -A t; n=$1
    for ((i = 0; i < n; i++)); do
        t[k$((i * 31 % 1009))]+="x$i,"; a+=("$i")
        ((i % 500 == 0)) && a=("${a[@]:100}")
    done
    for k in "${!t[@]}"; do echo "$k ${#t[$k]} ${t[$k]:0:20}"; done | sort | sha256sum
    s=0; for i in {1..60}; do s=$((s + $(echo "$i" | { read -r x; echo $((x * 2)); }))); done
    mapfile -t lines < <(seq 1 20000); echo "$s ${#lines[@]} ${lines[-1]} ${#a[@]}"
    f() { (($1 == 0)) && echo done || f $(($1 - 1)); }; f 400
    for i in 1 2 3 4; do (for j in {1..200}; do v=$(printf '%0500d' "$j"); done; exit "$i") & done
    wait; x=$(printf 'y%.0s' {1..30000}); echo "${#x} ${x//y/zz}" | sha256sum
'''


def test(args):
    perl, bash = sysutil.need('perl', 'perl'), sysutil.need('bash', 'bash')
    count = 10 if args.long else 1
    # A hash's order is salted by an address otherwise, and would differ between any two runs.
    sysutil.same([perl, '-e', PERL, str(200_000 * count)], 'perl', timeout=200,
                 extra={'PERL_HASH_SEED': '1', 'PERL_PERTURB_KEYS': '0'})
    sysutil.same([bash, '-c', BASH, 'bash', str(6_000 * count)], 'bash', timeout=200)


sysutil.main(test, __doc__)
