// SPDX-License-Identifier: MIT
//
// Option: what the user may choose, from EBB and from GODEBUG.
//
// Model
//   One line of option.def is one option: a field of struct options, its text form and its help.
//   EBB is name=value, divided by commas or blanks. GODEBUG is read as Go does: names and values
//   it does not know are passed over in silence, and of two entries the later counts. EBB wins.
//   A bad entry of EBB costs one line of message and changes nothing; the others still count.
//   GOMEMLIMIT is read as Go does, into option limit, but a malformed one is a line and not the
//   end.
//
// Locking
//   option_parse is pure: texts in, struct and messages out. options_main is written by boot before
//   the second thread exists and constant afterwards; its initial value is the defaults, so that a
//   malloc before the constructors finds them.
//
// Flow
//   boot reads the environment -> option_parse -> option_for_child where the parent ran Ebb too ->
//   options_main.
//
// Why this way
//   Not getenv here: it may be replaced by the program, and tests want texts.
//
// Go       runtime/runtime1.go parsedebugvars. Unlike Go: a mistake in EBB is reported, because a
//          policy that was misspelled and silently not used costs its user days.
// Tests    test/unit/option_test.c
#ifndef EBB_BASE_OPTION_H
#define EBB_BASE_OPTION_H

#include "base/base.h"
#include "base/fmt.h"

// Indexes of the choices in option.def. The policies are in the order of release/policies.c.
enum option_policy {
    OPTION_POLICY_GO116,
    OPTION_POLICY_GO111,
    OPTION_POLICY_GO112,
    OPTION_POLICY_GO113,
    OPTION_POLICY_GO119,
    OPTION_POLICY_DECAY,
    OPTION_POLICY_NEVER,
    OPTION_POLICY_NOW,
};
// AUTO is last, so that GODEBUG's madvdontneed=1|0 are the first two.
enum option_madvise { OPTION_MADVISE_DONTNEED, OPTION_MADVISE_FREE, OPTION_MADVISE_AUTO };
enum option_thp { OPTION_THP_DEFAULT, OPTION_THP_NEVER, OPTION_THP_KEEP };
enum option_stats { OPTION_STATS_OFF, OPTION_STATS_EXIT };
enum option_control { OPTION_CONTROL_OFF, OPTION_CONTROL_DEMAND, OPTION_CONTROL_ON };
enum option_limit_action {
    OPTION_LIMIT_ACTION_SOFT,
    OPTION_LIMIT_ACTION_ENOMEM,
    OPTION_LIMIT_ACTION_CALLBACK,
    OPTION_LIMIT_ACTION_ABORT,
};
enum option_syscalls { OPTION_SYSCALLS_CORE, OPTION_SYSCALLS_FULL };

// A TEXT lies in the struct itself: the environment's memory is the program's, and some write
// there. The empty text is "not set".
#define OPTION_TEXT_BYTES 128
struct option_text {
    char text[OPTION_TEXT_BYTES];
};
enum option_form { OPTION_FORM_ADDRESS, OPTION_FORM_ALLOW, OPTION_FORM_PATH };

#define OPTION_FIELD_BOOL bool
#define OPTION_FIELD_INT int
#define OPTION_FIELD_SIZE size_t
#define OPTION_FIELD_ENUM int
#define OPTION_FIELD_WORDSIZE size_t
#define OPTION_FIELD_TEXT struct option_text

// Word number index of a WORDSIZE option, as it is stored: above every size.
#define OPTION_WORD(index) (SIZE_MAX - (size_t)(index))
#define OPTION_LIMIT_OFF OPTION_WORD(0)
#define OPTION_LIMIT_AUTO OPTION_WORD(1)

struct options {
#define X(name, type, def, lo, hi, choices, scope, alias, help) OPTION_FIELD_##type name;
#include "base/option.def"
#undef X
};

// (C) constant after init
extern struct options options_main;

// option_defaults puts every option to its default.
void option_defaults(struct options *o);

// option_parse sets o to the defaults, then to what godebug_env and ebb_env say; either may be
// NULL. errors may be NULL; it receives one line "ebb: ...\n" per problem in ebb_env. Returns true
// if there was none.
bool option_parse(struct options *o, const char *ebb_env, const char *godebug_env,
                  struct fmt *errors);

// option_parse_gomemlimit sets limit to what GOMEMLIMIT says: digits, perhaps with B, KiB, MiB, GiB
// or TiB, or off. Empty or NULL says nothing. False, and one line in errors (may be NULL), if it
// says something else: then limit stays as it is. To be called before option_parse_over, because
// EBB wins.
bool option_parse_gomemlimit(struct options *o, const char *text, struct fmt *errors);

// option_parse_over reads ebb_env as option_parse does, on top of what o holds.
bool option_parse_over(struct options *o, const char *ebb_env, struct fmt *errors);

// option_for_child puts the options that print back to their defaults, unless children=1: what a
// process does whose environment came from a parent that was meant.
void option_for_child(struct options *o);

// struct option_info describes an option for `ebb options` and the documentation.
struct option_info {
    const char *name;
    const char *type;  // "bool", "int", "size", "enum", "wordsize", "text"
    const char *alias; // "GODEBUG name=v|v" without the first word, or ""
    const char *help;
    bool inherited;        // holds in children too
    char default_text[32]; // as option_value_text writes it
    char choices[96];      // "0|1", "1..50", "0..64TiB", "off|auto|1MiB..64TiB", or words
};

size_t option_count(void);
// option_info describes option number index, below option_count().
struct option_info option_info(size_t index);
// option_index returns the number of the option of that name, or SIZE_MAX.
size_t option_index(const char *name);
// option_value_text appends the value of option index in o, in a form option_parse takes.
void option_value_text(const struct options *o, size_t index, struct fmt *f);
// option_changed_text appends the options that are not at their defaults, as EBB takes them:
// "policy=now,check=1"; nothing if there is none.
void option_changed_text(const struct options *o, struct fmt *f);
// option_choice returns the text of choice number value of an ENUM or WORDSIZE option and its
// length in *len; NULL if there is none. The text is not closed by a zero.
const char *option_choice(size_t index, size_t value, size_t *len);

// Options behind this word and a process's number are that process's alone.
#define OPTION_OWN_MARK "pid="

// option_cut_foreign takes the mark out of text, if it names pid, or cuts text there.
void option_cut_foreign(char *text, long pid);

#endif
