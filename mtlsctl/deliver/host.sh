# What runs on a host: a loop that answers requests until they end. It is sent there each time and leaves nothing.
#
# Asked on standard input:  VERB ARGC BYTES, then ARGC lines, then BYTES bytes.
# Answered on standard out: any number of "D BYTES" frames, then "O", or "E CODE BYTES" with a message.
#
# Whatever arrives is data: never evaluated, always quoted, compared with a grammar before it becomes part of a path.
# Each verb runs in a subshell and is left by `refuse`, so neither folder nor variable of one reaches the next.
# POSIX sh (dash, bash) with GNU coreutils, findutils, grep, sed and tar, util-linux and OpenSSL 1.1.1 or newer.
# shellcheck shell=sh disable=SC2015,SC2086,SC3013

set -u -C -f
umask 077
LC_ALL=C
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
unset CDPATH
BASE=/etc/mtlsctl
NL='
'
FILE_LIMIT=1048576
KEY_LIMIT=65536
ENTRY_LIMIT=2000
SECONDS_FOR_A_PROGRAM=10
CLOCK_LIMIT=300
NOTHING=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
uid=
while read -r name _ value _; do
    [ "$name" != Uid: ] || uid=$value
done 2>/dev/null </proc/self/status
: "${uid:=$(id -u)}"
# Unless the greeting says otherwise, no verb gives away a key or what holds one.
keeps=keep

# Programs that are started here must not read what the next request says, nor write between the frames.
exec 3<&0 4>&1 </dev/null >/dev/null

# --- answers --------------------------------------------------------------------------------------------------------

answer() {
    printf 'D %s\n%s' "${#1}" "$1" >&4
}

drain() {
    [ "$rest" -le 0 ] || head -c "$rest" <&3 >/dev/null
    rest=0
}

# take_away: what a verb began and did not end, or needed for itself only.
take_away() {
    [ -z "$begun" ] || { cd / && rm -rf -- "$begun"; } 2>/dev/null
}

# The end of a verb that went well.
finish() {
    take_away
    drain
    printf 'O\n' >&4
    exit 0
}

# refuse CODE MESSAGE: the end of a verb. What was begun is taken away again.
refuse() {
    take_away
    drain
    message=$(printf '%.16384s' "$2")
    printf 'E %s %s\n%s' "$1" "${#message}" "$message" >&4
    exit 1
}

# The reason in what a program complained: GNU programs and both shells put it last on the line.
reason() {
    line=${1%%"$NL"*}
    printf '%s' "${line##*: }"
}

fail() {
    refuse M4101 "cannot $doing $what: $(reason "$1")"
}

attempt() {
    said=$("$@" 2>&1) || fail "$said"
}

# produce FILE PROGRAM...: openssl does not always say so when there is no room for what it writes.
produce() {
    product=$1
    shift
    said=$("$@" 2>&1) && [ -s "$product" ] && return 0
    said=${said:-nothing came of it}
    tried=$({ head -c 4096 /dev/zero >"$product.room"; } 2>&1) || said=$tried
    fail "$said"
}

# Most of the time nothing is there, and then nothing is started to find that out.
clear_away() {
    ! there "$1" || attempt rm -rf -- "$1"
}

# receive_into FILE BYTES: a new file with that much of the request. All of it is read, whatever becomes of the file.
receive_into() {
    rest=$((rest - $2))
    # shellcheck disable=SC2094
    said=$({ head -c "$2" <&3 | { cat >"$1" || { cat >/dev/null; exit 1; }; }; } 2>&1) || fail "$said"
    [ "$(stat -c %s -- "$1")" = "$2" ] || fail "the request was cut short"
}

# --- grammars -------------------------------------------------------------------------------------------------------

is_service() {
    case $1 in '' | -* | *- | *[!a-z0-9-]*) refuse M4102 "'$1' is not a service's name" ;; esac
    [ "${#1}" -le 63 ] || refuse M4102 "'$1' is not a service's name"
}

is_hex() {
    case $1 in '' | *[!0-9a-f]*) return 1 ;; esac
    [ "${#1}" -eq "$2" ]
}

is_release() {
    is_hex "$1" 16 || refuse M4102 "'$1' does not name a release"
}

is_spki() {
    is_hex "$1" 64 || refuse M4102 "'$1' does not name a key"
}

is_mode() {
    case $1 in 600 | 640 | 644) ;; *) refuse M4102 "'$1' is not a mode of ours" ;; esac
}

# A path below a folder: no way out of it, and nothing that a program could take for an option.
is_below() {
    case /$1/ in
    *[!A-Za-z0-9._@+/-]* | *//* | */./* | */../* | */-*) return 1 ;;
    esac
    [ "${#1}" -le 255 ]
}

is_path() {
    case $1 in
    /*) is_below "${1#/}" || refuse M4102 "'$1' is not a plain absolute path" ;;
    *) refuse M4102 "'$1' is not a plain absolute path" ;;
    esac
}

is_name() {
    case $1 in */*) refuse M4102 "'$1' is not a name" ;; esac
    is_below "$1" || refuse M4102 "'$1' is not a name"
}

# --- folders --------------------------------------------------------------------------------------------------------

there() {
    [ -e "$1" ] || [ -L "$1" ]
}

# folder_mode PATH: sets mode. Keys 0700, a service's own 0750, the way there 0755.
folder_mode() {
    case $1/ in
    "$BASE"/*/keys/*) mode=700 ;;
    "$BASE"/?*) mode=750 ;;
    *) mode=755 ;;
    esac
}

# ours PATH OWNER MODE: a folder of ours belongs to whoever runs this, and others do not write into it.
ours() {
    [ "$2" = "$uid" ] || refuse M4102 "$1 belongs to user $2, not to the user that runs this"
    folder_mode "$1"
    forbidden=022
    [ "$mode" != 700 ] || forbidden=077
    [ $((0$3 & forbidden)) -eq 0 ] || refuse M4102 "$1 has mode $(printf %04o "0$3"): others may reach into it"
}

# enter MAKE PATH: go there and follow no symlink. Gives 1 when it is not there and MAKE is not `make`.
enter() {
    if cd -P -- "$2" 2>/dev/null && [ "$PWD" = "$2" ]; then
        all_ours "$2"
    else
        walk "$1" "$2"
    fi
}

all_ours() {
    case $1/ in "$BASE"/*) ;; *) return 0 ;; esac
    at=$BASE
    below=${1#"$BASE"}
    set -- "$BASE"
    while [ -n "$below" ]; do
        below=${below#/}
        at=$at/${below%%/*}
        set -- "$@" "$at"
        case $below in */*) below=/${below#*/} ;; *) below= ;; esac
    done
    said=$(stat -c '%n %u %a' -- "$@" 2>&1) || fail "$said"
    set -- $said
    while [ $# -gt 0 ]; do
        ours "$1" "$2" "$3"
        shift 3
    done
}

# The long way: to make what is missing, or to say what is in the way.
walk() {
    cd / || exit 3
    at=
    below=${2#/}
    while [ -n "$below" ]; do
        part=${below%%/*}
        case $below in */*) below=${below#*/} ;; *) below= ;; esac
        at=$at/$part
        if ! there "./$part"; then
            [ "$1" = make ] || return 1
            folder_mode "$at"
            make_folder "$part" "$mode"
        fi
        if [ -L "./$part" ] || [ ! -d "./$part" ]; then
            refuse M4102 "$at is a symlink or not a folder; nothing was followed"
        fi
        cd -P -- "./$part" 2>/dev/null || attempt cd -P -- "./$part"
        case $at/ in
        "$BASE"/*)
            said=$(stat -c '%u %a' . 2>&1) || fail "$said"
            ours "$at" ${said% *} ${said#* }
            ;;
        esac
    done
    [ "$PWD" = "$2" ] || refuse M4102 "$2 is behind a symlink; nothing was followed"
}

make_folder() {
    if said=$(mkdir -m "$2" -- "./$1" 2>&1); then
        attempt sync -- "./$1" .
    else
        [ -d "./$1" ] || fail "$said"
    fi
}

# The same without going there, and all that it may refuse is refused.
folder_there() {
    (enter - "$1" || exit 9)
    seen=$?
    [ "$seen" -eq 0 ] || [ "$seen" -eq 9 ] || exit "$seen"
    [ "$seen" -eq 0 ]
}

# --- keys -----------------------------------------------------------------------------------------------------------

keys_of() {
    is_service "$1"
    is_spki "$2"
    what=$BASE/$1/keys/$2.key
}

key_gone() {
    refuse M4103 "the key of this release is gone: $1"
}

is_file() {
    [ -f "$1" ] && [ ! -L "$1" ]
}

has_key() {
    keys_of "$1" "$2"
    doing='look for the key'
    found=no
    enter "$3" "$BASE/$1/keys" && is_file "./$2.key" && found=yes
    answer "$found"
}

verb_has_key() {
    has_key "$1" "$2" -
}

verb_expect_key() {
    has_key "$1" "$2" make
}

verb_put_key() {
    keys_of "$1" "$2"
    doing='write the key'
    enter make "$BASE/$1/keys"
    ! is_file "./$2.key" || return 0
    clear_away "./$2.key.partial"
    begun=$BASE/$1/keys/$2.key.partial
    receive_into "./$2.key.partial" "$rest"
    attempt sync -- "./$2.key.partial"
    attempt mv -fT -- "./$2.key.partial" "./$2.key"
    begun=
    attempt sync -- .
}

# For a host whose keys are made elsewhere.
verb_read_key() {
    keys_of "$1" "$2"
    doing='read the key'
    [ "$keeps" = give ] || refuse M4315 'the keys of this host stay there'
    enter - "$BASE/$1/keys" && there "./$2.key" || key_gone "$what"
    is_file "./$2.key" || fail 'is not a regular file'
    content=$(base64 -w 0 -- "./$2.key") || fail 'it cannot be read'
    answer "$content"
}

verb_delete_keys_except() {
    is_service "$1"
    what=$BASE/$1/keys
    doing='delete keys in'
    enter - "$what" || return 0
    shift
    kept=' '
    for spki in "$@"; do
        is_spki "$spki"
        kept="$kept$spki.key "
    done
    set +f
    for file in ./* ./.[!.]* ./..?*; do
        there "$file" || continue
        case $kept in *" ${file#./} "*) ;; *) attempt rm -f -- "$file" ;; esac
    done
    set -f
    attempt sync -- .
}

# spki_of FILE: the SHA-256 of the public half of the first key in a PEM file, or a dash.
spki_of() {
    digest=$(openssl pkey -in "$1" -passin pass: -pubout -outform DER 2>/dev/null | sha256sum)
    [ "${digest%% *}" = "$NOTHING" ] && echo - || echo "${digest%% *}"
}

# sealed_spki_of FILE PASSWORD_FILE: the same of the key in a PKCS#12 file.
sealed_spki_of() {
    digest=$(timeout -k 2 "$SECONDS_FOR_A_PROGRAM" openssl pkcs12 -in "$1" -passin "file:$2" -nocerts -nodes 2>/dev/null |
        openssl pkey -pubout -outform DER 2>/dev/null | sha256sum)
    [ "${digest%% *}" = "$NOTHING" ] && echo - || echo "${digest%% *}"
}

# A key of somebody else's: its digest, its mode and its public half. Symlinks are followed, as ACME clients have them.
verb_borrow_key() {
    is_path "$1"
    [ -e "$1" ] || refuse M4116 "there is no key at $1"
    [ -f "$1" ] || refuse M4117 "the key at $1 cannot be read: not a plain file"
    [ -r "$1" ] || refuse M4117 "the key at $1 cannot be read: Permission denied"
    [ "$(stat -L -c %s -- "$1")" -le "$KEY_LIMIT" ] || refuse M4117 "the key at $1 cannot be read: too large for a key"
    digest=$(sha256sum <"$1")
    spki=$(spki_of "$1")
    [ "$spki" != - ] || refuse M4117 "openssl finds no private key without a password at $1"
    answer "${digest%% *}"
    answer "$(stat -L -c %a -- "$1")"
    answer "$spki"
}

# The key is born here. Its name is known only when it is there, so it is made under another one.
verb_request_key() {
    is_service "$1"
    what=$BASE/$1/keys
    doing='make a key in'
    case $3 in '' | [!A-Za-z0-9]* | *[!A-Za-z0-9.@_-]*) refuse M4102 "'$3' is not a common name of ours" ;; esac
    [ "${#3}" -le 64 ] || refuse M4102 "'$3' is not a common name of ours"
    case $2 in
    ecdsa-p256) made='ec -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:named_curve' ;;
    ed25519) made=ed25519 ;;
    rsa-2048 | rsa-3072 | rsa-4096) made="rsa:${2#rsa-}" ;;
    *) refuse M4102 "'$2' is not a kind of key" ;;
    esac
    enter make "$what"
    clear_away ./new.partial
    begun=$what/new.partial
    attempt mkdir -- ./new.partial
    # Through a program, which says why it could not write: for dash all is an I/O error.
    said=$({ printf '[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = %s\n' "$3" |
        cat >./new.partial/cnf; } 2>&1) || fail "$said"
    # Starting openssl is most of the work, so one does it all: the key, and its public half and the request as text.
    produce ./new.partial/public openssl req -new -newkey $made -nodes -config ./new.partial/cnf -keyout ./new.partial/key -pubkey \
        -out ./new.partial/public
    half=
    request=
    part=
    while read -r line; do
        case $line in
        '-----BEGIN PUBLIC KEY-----') part=half ;;
        '-----BEGIN CERTIFICATE REQUEST-----') part=request ;;
        -----*) part= ;;
        *) case $part in half) half=$half$line ;; request) request=$request$line ;; esac ;;
        esac
    done <./new.partial/public
    spki=$(printf '%s' "$half" | base64 -d | sha256sum)
    spki=${spki%% *}
    [ "$spki" != "$NOTHING" ] && is_hex "$spki" 64 || fail 'openssl said nothing about the key'
    attempt sync -- ./new.partial/key
    attempt mv -fT -- ./new.partial/key "./$spki.key"
    attempt rm -rf -- ./new.partial
    begun=
    attempt sync -- .
    answer "$request"
}

# The signature over what is to be signed, as a certificate holds it.
verb_sign_with_key() {
    keys_of "$1" "$2"
    doing='sign with the key'
    enter - "$BASE/$1/keys" && is_file "./$2.key" || key_gone "$what"
    clear_away ./sign.partial
    begun=$BASE/$1/keys/sign.partial
    attempt mkdir -- ./sign.partial
    receive_into ./sign.partial/signed "$rest"
    case $(openssl pkey -in "./$2.key" -passin pass: -noout -text_pub 2>/dev/null) in
    ED25519*)
        case $(openssl version) in
        "OpenSSL 1."*) refuse M4308 "openssl 3.0 or newer is needed there to sign with an Ed25519 key" ;;
        esac
        set -- pkeyutl -sign -rawin -out ./sign.partial/signature -inkey "./$2.key" -in ./sign.partial/signed
        ;;
    *) set -- dgst -sha256 -sign "./$2.key" -out ./sign.partial/signature ./sign.partial/signed ;;
    esac
    produce ./sign.partial/signature openssl "$@"
    signature=$(base64 -w 0 ./sign.partial/signature)
    attempt rm -rf -- ./sign.partial
    begun=
    answer "$signature"
}

# Keys and the live release of a service under another name too: SERVICE TO RELEASE|- SPKI... All of it is linked, so
# nothing is there twice, and nothing goes from its old place.
verb_carry() {
    is_service "$1"
    is_service "$2"
    old=$1 new=$2 release=$3
    [ "$release" = - ] || is_release "$release"
    shift 3
    for one in "$@"; do
        is_spki "$one"
    done
    for one in "$@"; do
        doing='link the key' what=$BASE/$new/keys/$one.key
        folder_there "$BASE/$old/keys" && is_file "$BASE/$old/keys/$one.key" || continue
        enter make "$BASE/$new/keys"
        there "./$one.key" || attempt ln -T -- "$BASE/$old/keys/$one.key" "./$one.key"
        attempt sync -- .
    done
    [ "$release" != - ] || return 0
    what=$BASE/$new/releases/$release doing='link the release in'
    folder_there "$BASE/$old/releases/$release" || refuse M4103 "$BASE/$old/releases/$release is gone"
    enter make "$BASE/$new/releases"
    ! there "./$release" || return 0
    attempt rm -rf -- "./$release.partial"
    begun=$BASE/$new/releases/$release.partial
    attempt cp -a -l -T -- "$BASE/$old/releases/$release" "./$release.partial"
    attempt mv -fT -- "./$release.partial" "./$release"
    begun=
    attempt sync -- .
}

# --- releases -------------------------------------------------------------------------------------------------------

release_of() {
    is_service "$1"
    is_release "$2"
    what=$BASE/$1/releases/$2
}

verb_has_release() {
    release_of "$1" "$2"
    doing='look for'
    enter - "$what" && answer yes || answer no
}

verb_releases() {
    is_service "$1"
    what=$BASE/$1/releases
    doing='list'
    enter - "$what" || return 0
    names=$(find . -mindepth 1 -maxdepth 1 -printf '%T@ %f\n' | head -n $((ENTRY_LIMIT + 1)))
    answer "$names"
}

# away FOLDER: a rename first, so that nothing is ever half there under its name.
away() {
    clear_away "./$1.$2"
    ! there "./$1" || attempt mv -fT -- "./$1" "./$1.$2"
}

delete_here() {
    for one in "$@"; do
        away "$one" partial
    done
    attempt sync -- .
    set +f
    for one in ./*.partial; do
        ! there "$one" || attempt rm -rf -- "$one"
    done
    set -f
    attempt sync -- .
}

verb_delete_releases() {
    is_service "$1"
    what=$BASE/$1/releases
    doing='delete releases in'
    shift
    for one in "$@"; do
        is_release "$one"
    done
    enter - "$what" || return 0
    delete_here "$@"
}

verb_delete_service() {
    is_service "$1"
    what=$BASE/$1
    doing=delete
    enter - "$BASE" || return 0
    there "./$1" || there "./$1.deleted" || return 0
    away "$1" deleted
    attempt sync -- .
    attempt rm -rf -- "./$1.deleted"
    attempt sync -- .
}

# Args: service, release, key or a dash, bytes of the two lists; then what is made here, each as `KIND WORDS`.
# Payload: "PATH f MODE" for each file, an empty line, "SHA256  ./PATH" for each that is sent, and a tar of those.
verb_stage() {
    release_of "$1" "$2"
    service=$1 release=$2 spki=$3 size=$4
    [ "$spki" = - ] || is_spki "$spki"
    case $size in '' | *[!0-9]* | ????????*) refuse M4309 "a size is not a number" ;; esac
    shift 4
    doing='stage the release in'
    rest=$((rest - size))
    lists=$(head -c "$size" <&3)
    listing=${lists%%"$NL$NL"*}
    sums=${lists#*"$NL$NL"}
    check_orders "$@"
    for one in "$@"; do
        case $one in "link "*) link_beside "${one#link }" || exit 1 ;; esac
    done
    if there "$BASE/$service/releases/$release" && enter - "$BASE/$service/releases/$release"; then
        ! holds "$@" || return 0
        cd ..
        delete_here "$release"
    fi
    what=$BASE/$service/releases/$release.partial
    enter make "$BASE/$service/releases"
    clear_away "./$release.partial"
    begun=$what
    attempt mkdir -- "./$release.partial"
    cd -P -- "./$release.partial" || fail 'it went away'
    fill "$@"
    holds "$@" || { mend_key_mode && holds "$@"; } ||
        refuse M4101 "cannot $doing $what: it does not hold what was sent"
    attempt chmod 750 .
    attempt find . -depth -exec sync -- {} +
    cd .. || exit 3
    attempt mv -T -- "./$release.partial" "./$release"
    begun=
    attempt sync -- .
}

check_orders() {
    IFS=$NL
    for one in $listing; do
        path=${one%% *}
        is_below "$path" || refuse M4102 "'$path' is not the name of a file of a release"
        case ${one#* } in 'f 600' | 'f 640' | 'f 644') ;; *) refuse M4102 "'$one' is not a file of a release" ;; esac
    done
    unset IFS
    for one in "$@"; do
        set -- ${one#* }
        case "${one%% *} $#" in
        "link 1") is_name "$1" ;;
        "combined 1") is_below "$1" || refuse M4102 "'$1' is not a file of a release" ;;
        "modern 3" | "legacy 3")
            is_name "$1"
            is_below "$2" && is_below "$3" || refuse M4102 "'$one' is not a file of a release"
            ;;
        *) refuse M4102 "'$one' is nothing that is made here" ;;
        esac
    done
}

# Links that lead nowhere until `current` is there; they are the same for every release.
link_beside() (
    doing=link what=$BASE/$service/$1
    enter make "$BASE/$service"
    if ! there "./$1"; then
        attempt ln -sT -- "current/$1" "./$1"
        attempt sync -- .
    elif [ ! -L "./$1" ] || [ "$(readlink -- "./$1")" != "current/$1" ]; then
        refuse M4102 "$what is not a symlink to current/$1; it was left alone"
    fi
)

fill() {
    said=$({ head -c "$rest" <&3 |
        { tar -x -f - -p -m --no-same-owner --keep-old-files || { cat >/dev/null; exit 1; }; }; } 2>&1)
    status=$?
    rest=0
    [ $status -eq 0 ] || fail "$(untarred "$said")"
    [ "$spki" = - ] || link_key
    for one in "$@"; do
        set -- ${one#* }
        case $one in
        "combined "*)
            said=$({ combine >"./$1"; } 2>&1) || fail "$said"
            attempt chmod 600 -- "./$1"
            ;;
        "modern "* | "legacy "*) make_store "${one%% *}" "$@" ;;
        esac
    done
}

# tar calls a full file system a short write.
untarred() {
    case $1 in *': Wrote only '*) echo 'No space left on device' ;; *) printf '%s' "$1" ;; esac
}

link_key() {
    folder_there "$BASE/$service/keys" && is_file "../../keys/$spki.key" || key_gone "$BASE/$service/keys/$spki.key"
    if ! ln -T -- "../../keys/$spki.key" ./tls.key 2>/dev/null; then
        said=$({ cat -- "../../keys/$spki.key" >./tls.key; } 2>&1) || fail "$said"
    fi
}

# A key of ours is 0600 since it was born; one that its owner put there may not be.
mend_key_mode() {
    [ "$spki" != - ] && attempt chmod 600 -- ./tls.key
}

combine() {
    sed '/^-----END CERTIFICATE-----$/q' ./tls.crt && cat ./tls.key
}

# make_store PROFILE ALIAS PASSWORD_FILE PATH
make_store() {
    ! there "./$4" || refuse M4102 "'$4' is there twice"
    path=$4 alias=$2 password=$3
    case $1 in
    modern) set -- -keypbe AES-256-CBC -certpbe AES-256-CBC -macalg sha256 ;;
    *) set -- -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 ;;
    esac
    case $(openssl pkcs12 -help 2>&1) in *" -iter "*) set -- "$@" -iter 10000 ;; esac
    doing='make the store' what=$path
    attempt openssl pkcs12 -export -in ./tls.crt -inkey ./tls.key -name "$alias" -passout "file:./$password" "$@" \
        -out "./$path"
    attempt chmod 600 -- "./$path"
    doing='stage the release in' what=$BASE/$service/releases/$release.partial
}

# Whether this folder holds just what was asked for: names, modes, digests, and what is made here made well.
holds() {
    found=$(find . -mindepth 1 ! -type d -printf '%P %y %m\n' | sort)
    [ "$found" = "$listing" ] || return 1
    [ "$sums" = - ] || printf '%s\n' "$sums" | sha256sum -c --strict --status 2>/dev/null || return 1
    for one in "$@"; do
        set -- ${one#* }
        case $one in
        "combined "*) [ "$(combine | sha256sum)" = "$(sha256sum <"./$1")" ] || return 1 ;;
        "modern "* | "legacy "*) holds_store "$@" || return 1 ;;
        esac
    done
}

# holds_store ALIAS PASSWORD_FILE PATH: it opens, and holds the key by that name and the whole chain.
holds_store() {
    [ "$(sealed_spki_of "./$3" "./$2")" = "$spki" ] || return 1
    chain=$(grep -c -e '-BEGIN CERTIFICATE-' ./tls.crt)
    sealed=$(openssl pkcs12 -in "./$3" -passin "file:./$2" -nokeys 2>/dev/null | grep -c -e '-BEGIN CERTIFICATE-')
    [ "$chain" = "$sealed" ] || return 1
    openssl pkcs12 -in "./$3" -passin "file:./$2" -nocerts -nodes 2>/dev/null | grep -q "^ *friendlyName: $1\$"
}

# What lies in the folder, a line for each: kind, mode, size, path. Only plain files of a bearable size are read.
list_here() {
    # A name with a line's end in it is none of ours, so it is enough to say that there is one.
    entries=$(find . -mindepth 1 \( -path "*$NL*" -printf "? 0 0 a name of two lines\n" \
        -o -printf '%y %m %s %P\n' \) | head -n $((ENTRY_LIMIT + 1)))
    count=0
    IFS=$NL
    set --
    for one in $entries; do
        count=$((count + 1))
        kind=${one%% *}
        one=${one#* }
        one=${one#* }
        bytes=${one%% *}
        path=${one#* }
        case $kind in
        d | '?') continue ;;
        f) ;;
        *) fail "$path is not a regular file" ;;
        esac
        [ "$bytes" -le "$FILE_LIMIT" ] || fail "$path is larger than $FILE_LIMIT bytes"
        set -- "$@" "./$path"
    done
    unset IFS
    [ "$count" -le "$ENTRY_LIMIT" ] || fail "it holds more than $ENTRY_LIMIT entries"
    digests=
    [ $# -eq 0 ] || digests=$(sha256sum -- "$@")
}

verb_list_release() {
    release_of "$1" "$2"
    doing='read'
    enter - "$what" || return 0
    list_here
    answer "$entries"
    answer "$digests"
}

# The same with the bytes of whatever holds no private key; of what does, the digest of its public half.
verb_read_release() {
    release_of "$1" "$2"
    doing='read'
    enter - "$what" || fail 'No such file or directory'
    list_here
    hidden=''
    if [ "$keeps" != give ]; then
        hidden=$NL$(grep -r -l -a -e 'PRIVATE KEY' .)$NL./tls.key$NL
        # Key stores lie where nobody else reads.
        others=
        IFS=$NL
        for one in $entries; do
            case $one in 'f 600 '*' tls.key') ;; 'f '*00' '*) others=1 ;; esac
        done
        unset IFS
        [ -z "$others" ] ||
            hidden=$hidden$(find . -type f ! -perm /077 -exec grep -l -a -e '[^[:print:][:space:]]' -- {} +)$NL
    fi
    halves=
    total=0
    IFS=$NL
    set --
    for one in $entries; do
        [ "${one%% *}" = f ] || continue
        one=${one#* }
        one=${one#* }
        path=${one#* }
        is_below "$path" || continue
        case $hidden in
        *"$NL./$path$NL"*) halves="$halves$(half_of "./$path") $path$NL" ;;
        *)
            total=$((total + ${one%% *}))
            set -- "$@" "./$path"
            ;;
        esac
    done
    unset IFS
    answer "$entries"
    answer "$digests"
    answer "$halves"
    # Files that change while they are read must not shift the frames: it is always as much as was said.
    printf 'D %s\n' "$total" >&4
    { [ $# -eq 0 ] || cat -- "$@"; cat /dev/zero; } 2>/dev/null | head -c "$total" >&4
}

half_of() {
    half=$(spki_of "$1")
    if [ "$half" = - ] && [ -f ./secrets/store-password ]; then
        half=$(sealed_spki_of "$1" ./secrets/store-password)
    fi
    printf '%s' "$half"
}

# --- pointers -------------------------------------------------------------------------------------------------------

pointer_at() {
    is_path "$1"
    what=$1
    folder=${1%/*}
    name=${1##*/}
    [ -n "$name" ] || refuse M4102 "'$1' does not name a file"
}

verb_read_pointer() {
    pointer_at "$1"
    doing='read'
    enter - "${folder:-/}" && there "./$name" || return 0
    if [ -L "./$name" ]; then
        answer current
        answer "$(readlink -- "./$name")"
        return 0
    fi
    [ -f "./$name" ] || fail 'is not a regular file'
    seen=$(stat -c '%a %s' -- "./$name" 2>&1) || fail "$seen"
    [ "${seen#* }" -le "$FILE_LIMIT" ] || fail "is larger than $FILE_LIMIT bytes"
    content=$(base64 -w 0 -- "./$name") || fail 'it cannot be read'
    answer "file ${seen% *}"
    answer "$content"
}

verb_switch_file() {
    pointer_at "$1"
    is_mode "$2"
    doing=switch
    enter make "${folder:-/}"
    if there "./$name"; then
        is_file "./$name" || refuse M4102 "$what is not a file; it was left alone"
    fi
    # Not `.conf`: a server that includes `*.conf` must never read a half-written one.
    clear_away "./.$name.partial"
    begun=$folder/.$name.partial
    receive_into "./.$name.partial" "$rest"
    attempt chmod "$2" -- "./.$name.partial"
    attempt sync -- "./.$name.partial"
    rename_pointer
}

verb_switch_current() {
    pointer_at "$1"
    doing=switch
    enter make "${folder:-/}"
    if there "./$name" && [ ! -L "./$name" ]; then
        refuse M4102 "$what is not a symlink; it was left alone"
    fi
    is_hex "${2#releases/}" 16 && [ "$2" = "releases/${2#releases/}" ] && folder_there "$folder/$2" ||
        refuse M4102 "$folder/$2 is not a whole release"
    clear_away "./.$name.partial"
    begun=$folder/.$name.partial
    attempt ln -sT -- "$2" "./.$name.partial"
    rename_pointer
}

rename_pointer() {
    attempt mv -fT -- "./.$name.partial" "./$name"
    begun=
    attempt sync -- .
}

verb_remove_pointer() {
    pointer_at "$1"
    doing=remove
    enter - "${folder:-/}" || return 0
    attempt rm -f -- "./$name"
    attempt sync -- .
}

# --- whose host it is -----------------------------------------------------------------------------------------------

verb_hello() {
    is_hex "$1" 32 || exit 3
    printf 'mtlsctl %s\n' "$1" >&4
    missing=
    for tool in base64 cat chmod date df env find flock grep head id ln mkdir mktemp mv openssl readlink rm sed \
        sha256sum sleep sort stat sync tail tar timeout tr uname; do
        command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
    done
    [ -z "$missing" ] || refuse M4308 "missing there:$missing"
    case $(stat --version 2>&1) in
    *coreutils*) ;;
    *) refuse M4308 "missing there: GNU coreutils" ;;
    esac
    answer "1 $uid"
}

verb_claim() {
    case $1 in '' | -* | *[!A-Za-z0-9-]*) refuse M4102 "'$1' is not a lineage" ;; esac
    doing=claim what=$BASE/.lineage
    enter make "$BASE"
    if ! there ./.lineage; then
        clear_away ./.lineage.partial
        begun=$BASE/.lineage.partial
        said=$({ printf '%s\n' "$1" | cat >./.lineage.partial; } 2>&1) || fail "$said"
        attempt chmod 644 -- ./.lineage.partial
        attempt sync -- ./.lineage.partial
        # A hard link is made or refused, whole or not at all; a rename would take it from whoever was quicker.
        ln -T -- ./.lineage.partial ./.lineage 2>/dev/null || there ./.lineage || fail 'it cannot be written'
        attempt rm -f -- ./.lineage.partial
        begun=
        attempt sync -- .
    fi
    is_file ./.lineage || fail 'is not a regular file'
    owner=$(head -c 200 ./.lineage)
    [ "$owner" = "$1" ] || refuse M4111 "$owner"
}

# What stands in the lock: lineage, holder, since when, the holder's mark, and PID:START of the shell that holds it.
verb_holder() {
    answer "$(head -c 1000 "$BASE/.lock" 2>/dev/null)"
}

# In the shell itself, not below it: the lock is held as long as its descriptor is open, which is until the end.
lock() {
    (
        doing=lock what=$BASE/.lock
        enter make "$BASE"
        if there ./.lock; then
            is_file ./.lock || fail 'is not a regular file'
        fi
    ) || return 0
    # Certificates have a beginning and an end: nothing is done where the time is another one.
    now=$(date +%s)
    off=$((now - $(date -d "$3" +%s 2>/dev/null || echo "$now")))
    if [ "${off#-}" -gt "$CLOCK_LIMIT" ]; then
        case $off in -*) off="${off#-} s behind" ;; *) off="$off s ahead of" ;; esac
        (refuse M4313 "its clock is $off the one here")
    elif ! command exec 9>>"$BASE/.lock"; then
        (
            doing=lock what=$BASE/.lock
            said=$({ : >>"$BASE/.lock"; } 2>&1)
            fail "${said:-it cannot be written}"
        )
    elif ! flock -n 9 && ! evict "$5"; then
        exec 9>&-
        (refuse M4312 "$(head -n 3 "$BASE/.lock" | head -c 1000)")
    else
        printf '%s\n%s\n%s\n%s\n%s:%s\n' "$1" "$2" "$3" "$4" "$$" "$(started $$)" >|"$BASE/.lock"
        printf 'O\n' >&4
    fi
}

# evict PID:START: end a shell whose controller has ended without its noticing. Who asks knows that it has.
evict() {
    [ "$1" != - ] && [ "$1" = "$(sed -n 5p "$BASE/.lock")" ] || return 1
    case ${1%%:*} in '' | 0* | 1 | *[!0-9]*) return 1 ;; esac
    [ "$(started "${1%%:*}")" != "${1#*:}" ] || end_tree "${1%%:*}"
    flock -w 5 9
}

end_tree() (
    those=$(children "$1")
    kill -9 "$1" 2>/dev/null
    for one in $those; do
        end_tree "${one%:*}"
    done
)

fact() {
    value=${2%%"$NL"*}
    [ -z "$value" ] || printf '%s %.300s\n' "$1" "$value"
}

version_of() {
    command -v "$2" >/dev/null 2>&1 || return 0
    name=$1
    shift
    fact "$name" "$(timeout -k 2 "$SECONDS_FOR_A_PROGRAM" "$@" 2>&1)"
}

verb_facts() {
    answer "$(
        fact uname "$(uname -srm)"
        fact uid "$uid"
        fact clock "$(date +%s.%N)"
        [ ! -r /etc/os-release ] || fact system "$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release | tr -d \")"
        place=$BASE
        [ -d "$place" ] || place=/etc
        space=$(df -Pk -- "$place" | tail -n 1)
        set -- $space
        [ $# -lt 6 ] || fact free_kib "$4"
        version_of tool:openssl openssl version
        version_of tool:tar tar --version
        version_of tool:coreutils stat --version
        version_of tool:flock flock --version
        [ ! -d /run/systemd/system ] || version_of tool:systemd systemctl --version
        version_of program:nginx nginx -v
        version_of program:apache2 apache2 -v
        version_of program:httpd httpd -v
        version_of program:node node --version
        version_of program:java java -version
        [ ! -d /run/systemd/system ] || fact init systemd
    )"
    answer "$(listening | head -n $ENTRY_LIMIT)"
}

# Sockets that listen, as the kernel lists them: /proc/net/tcp, state 0A.
listening() {
    grep -h -E '^ *[0-9]+: [0-9A-F:]+ [0-9A-F:]+ 0A ' "/proc/${1:-self}/net/tcp" "/proc/${1:-self}/net/tcp6" 2>/dev/null
}

# --- checks ---------------------------------------------------------------------------------------------------------

# try PROGRAM ARGS: bounded, with a bare environment; answers with its status and the end of what it said.
try() {
    said=$({
        timeout -k 2 "$SECONDS_FOR_A_PROGRAM" env -i "LC_ALL=$LC_ALL" "PATH=$PATH" "$@" 2>&1 3<&- 4>&- 9>&-
        printf '\n%s' $?
    } | tail -c 16384)
    status=${said##*"$NL"}
    said=${said%"$NL"*}
}

# What it was tried in is gone by the time that it is said.
answer_tried() {
    trap - EXIT
    [ -z "$begun" ] || { cd / && rm -rf -- "$begun"; }
    begun=
    answer "$1 $status"
    answer "$said"
}

check_folder() {
    doing=check what=$BASE
    enter make "$BASE"
    # Those of a check that was killed.
    find . -mindepth 1 -maxdepth 1 -name '.check.*' -mmin +10 -exec rm -rf -- {} +
    place=$(mktemp -d "$BASE/.check.XXXXXXXXXX" 2>&1) || fail "$place"
    begun=$place
    cd -P -- "$place" || exit 3
}

nginx_test_text() {
    printf '%s\n' "daemon off;
pid \"$place/nginx.pid\";
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path \"$place/body\";
    proxy_temp_path \"$place/proxy\";
    fastcgi_temp_path \"$place/fastcgi\";
    uwsgi_temp_path \"$place/uwsgi\";
    scgi_temp_path \"$place/scgi\";
    include \"$place/pointer.conf\";
}"
}

verb_check_nginx() {
    program=$(command -v nginx) || return 0
    check_folder
    receive_into ./pointer.conf "$rest"
    said=$({ nginx_test_text | cat >./nginx.conf; } 2>&1) || fail "$said"
    set -- -t -q -p "$place" -c "$place/nginx.conf"
    # Since 1.19.5: else it complains that it may not write to its own log.
    try "$program" "$@" -e stderr
    case $said in *'invalid option: "e"'*) try "$program" "$@" ;; esac
    answer_tried test
}

verb_check_node() {
    pointer_at "$1"
    program=$(command -v node) || return 0
    doing=check
    try "$program" --check "$1"
    answer_tried test
}

apache_program() {
    command -v apache2 || command -v httpd
}

apache_modules() {
    for place in /usr/lib/apache2/modules /usr/lib64/httpd/modules /usr/lib/httpd/modules \
        /usr/local/apache2/modules /usr/libexec/apache2 /usr/local/libexec/apache24; do
        [ ! -f "$place/mod_ssl.so" ] || { echo "$place" && return 0; }
    done
    return 1
}

load_lines() {
    for mpm in event worker prefork ''; do
        [ -z "$mpm" ] || [ ! -f "$modules/mod_mpm_$mpm.so" ] || break
    done
    if [ -n "$mpm" ]; then
        printf '<IfModule !mpm_%s_module>\n' event worker prefork
        printf 'LoadModule mpm_%s_module "%s/mod_mpm_%s.so"\n' "$mpm" "$modules" "$mpm"
        printf '</IfModule>\n</IfModule>\n</IfModule>\n'
    fi
    for name in authn_core authz_core version unixd alias headers ssl proxy proxy_http slotmem_shm \
        lbmethod_byrequests proxy_balancer; do
        [ ! -f "$modules/mod_$name.so" ] || printf '<IfModule !%s_module>\nLoadModule %s_module "%s"\n</IfModule>\n' \
            "$name" "$name" "$modules/mod_$name.so"
    done
}

trial_text() {
    cat <<END
ServerRoot "$place"
DefaultRuntimeDir "$place"
PidFile "$place/pid"
ErrorLog "$place/error.log"
LogLevel notice
ServerName localhost
StartServers 1
$(load_lines)
<IfModule mod_unixd.c>
    User #65534
    Group #65534
</IfModule>
Listen 127.0.0.1:$port
Include "$place/pointer.conf"
END
}

# A port of 127.0.0.1 that nothing listens at now.
free_port() {
    taken=$(listening)
    while :; do
        random=$(head -c 2 /dev/urandom | base64 -w 0 | sha256sum)
        random=$((20000 + 0x$(printf '%.4s' "$random") % 12000))
        case $taken in *":$(printf %04X "$random") "*) ;; *) break ;; esac
    done
    echo "$random"
}

# A server of our own with the staged files, started and ended: `-t` passes much of what only a start refuses.
verb_check_apache() {
    program=$(apache_program) || return 0
    if ! modules=$(apache_modules); then
        answer 'modules 0'
        return 0
    fi
    check_folder
    receive_into ./pointer.conf "$rest"
    for _ in 1 2 3; do
        port=$(free_port)
        said=$({ trial_text >|./apache.conf; } 2>&1) || fail "$said"
        try "$program" -f "$place/apache.conf" -t
        if [ "$status" != 0 ]; then
            answer_tried test
            return 0
        fi
        start_and_end
        case $said in *AH00072*) ;; *) break ;; esac
    done
    answer_tried start
}

start_and_end() {
    rm -f -- ./error.log
    # `timeout` makes a process group of it, and ends it even if nothing else is left to do so.
    timeout -k 2 $((SECONDS_FOR_A_PROGRAM * 3)) env -i "LC_ALL=$LC_ALL" "PATH=$PATH" \
        "$program" -f "$place/apache.conf" -DFOREGROUND >|./said 2>&1 3<&- 4>&- 9>&- &
    child=$!
    status=
    now
    end=$((now + SECONDS_FOR_A_PROGRAM))
    while [ -z "$status" ]; do
        now
        if grep -q 'resuming normal operations' ./error.log 2>/dev/null; then
            status=0
        elif ! kill -0 "$child" 2>/dev/null; then
            wait "$child"
            status=$?
            [ "$status" != 0 ] || status=1
        elif [ "$now" -ge "$end" ]; then
            status=124
        else
            sleep 0.05
        fi
    done
    kill -s TERM -- "-$child" 2>/dev/null
    polls=0
    while kill -0 "$child" 2>/dev/null && [ "$polls" -lt 40 ]; do
        polls=$((polls + 1))
        sleep 0.05
    done
    kill -s KILL -- "-$child" 2>/dev/null
    wait "$child" 2>/dev/null
    said=$(cat ./said ./error.log 2>/dev/null | tail -c 16384)
}

# Where the host listens, which of those sockets a process has, and which addresses are its own.
verb_sockets() {
    program=$1 process=$2
    is_service "$process"
    find_process "$program" "$process"
    answer "$(listening | head -n $ENTRY_LIMIT)"
    answer "$([ -z "$pid" ] || { is_program && sockets_of "$pid"; } 4>/dev/null)"
    answer "$(
        grep -h -B 1 -e 'host LOCAL' /proc/net/fib_trie 2>/dev/null | head -n $ENTRY_LIMIT
        echo
        head -n $ENTRY_LIMIT /proc/net/if_inet6 2>/dev/null
        echo
        cat /proc/sys/net/ipv4/ip_nonlocal_bind 2>/dev/null
    )"
    answer "$(uname -srm)"
}

now() {
    IFS=' .' read -r now _ </proc/uptime
}

# --- processes ------------------------------------------------------------------------------------------------------

# find_process PROGRAM PROCESS: sets pid and unit, both empty when it does not run; `looked` says where it was sought.
find_process() {
    pid=''
    unit=''
    looked=''
    odd=''
    case $1 in
    nginx) units=nginx files="/run/$2.pid compiled" ;;
    apache2) units='apache2 httpd' files="/run/$2.pid /run/apache2/apache2.pid /run/httpd/httpd.pid" ;;
    *) units=$2 files=/run/$2.pid ;;
    esac
    if [ -d /run/systemd/system ]; then
        for one in $units; do
            looked="$looked $one.service"
            pid=$(systemctl show -p MainPID --value -- "$one.service" 2>/dev/null)
            case $pid in '' | 0 | *[!0-9]*) pid= ;; *) unit=$one.service && return 0 ;; esac
        done
    fi
    for one in $files; do
        [ "$one" != compiled ] || one=$(nginx_pid_path)
        [ -n "$one" ] || continue
        looked="$looked $one"
        there "$one" || continue
        is_file "$one" && pid=$(head -c 20 "$one")
        case $pid in '' | 0* | 1 | *[!0-9]* | ????????*) odd=$one pid='' ;; esac
        return 0
    done
}

nginx_pid_path() {
    command -v nginx >/dev/null 2>&1 || return 0
    compiled=$(nginx -V 2>&1 | tr ' ' '\n' | sed -n 's/^--pid-path=//p')
    case $compiled in /*) ! is_below "${compiled#/}" || printf '%s' "$compiled" ;; esac
}

ended() {
    answer "$process is not running: process $pid has ended"
    finish
}

# Fields of /proc/PID/stat from the state on: the name before them is in brackets and may hold anything.
stat_of() {
    { IFS= read -r line </proc/"$1"/stat; } 2>/dev/null || return 1
    printf '%s' "${line##*) }"
}

# started PID: when, in ticks; fails for a process that has ended.
started() {
    fields=$(stat_of "$1") || return 1
    set -- $fields
    [ "$1" != Z ] && [ "$1" != X ] && printf '%s' "${20}"
}

# A signal reaches nothing but the program that was meant.
is_program() {
    started "$pid" >/dev/null && { IFS= read -r comm </proc/"$pid"/comm; } 2>/dev/null || ended
    exe=$(readlink -- "/proc/$pid/exe" 2>/dev/null)
    exe=${exe##*/}
    exe=${exe%" (deleted)"}
    for one in "$comm" "$exe"; do
        [ "$one" != "$(printf %.15s "$program")" ] && [ "$one" != "$program" ] || return 0
        [ "$program" != apache2 ] || [ "$one" != httpd ] || return 0
    done
    return 1
}

is_reachable() {
    owner=$(stat -c %u -- "/proc/$pid" 2>/dev/null) || ended
    [ "$uid" = 0 ] || [ "$uid" = "$owner" ] || refuse M4202 "process $pid belongs to user $owner; it was not signalled"
}

# send SIGNAL NUMBER: one that the process does not wait for would end it, so it is not sent.
send() {
    caught=
    while read -r name value; do
        [ "$name" != SigCgt: ] || caught=${value#"${value%????}"}
    done 2>/dev/null <"/proc/$pid/status" || ended
    is_hex "$caught" 4 && [ $((0x$caught >> ($2 - 1) & 1)) -eq 1 ] ||
        refuse M4202 "process $pid has no handler for SIG$1; it was not signalled"
    said=$(kill -s "$1" "$pid" 2>&1) || {
        started "$pid" >/dev/null || ended
        refuse M4202 "process $pid may not be signalled: $(reason "$said")"
    }
}

# children PID: PID:START of each that has not ended.
children() {
    # The kernel has the list, unless it was built without; then every process is looked at.
    found=
    if { IFS= read -r found <"/proc/$1/task/$1/children" || [ -e "/proc/$1/task/$1/children" ]; } 2>/dev/null; then
        for one in $found; do
            ! born=$(started "$one") || printf '%s:%s ' "$one" "$born"
        done
        return 0
    fi
    set +f
    # shellcheck disable=SC2013
    for one in $(grep -l -E "^[0-9]+ \(.*\) [^ZX] $1 " /proc/[0-9]*/stat 2>/dev/null); do
        one=${one#/proc/}
        one=${one%/stat}
        ! born=$(started "$one") || printf '%s:%s ' "$one" "$born"
    done
    set -f
}

verb_reload() {
    kind=$1 program=$2 process=$3
    is_service "$process"
    case $program in '' | *[!A-Za-z0-9._+-]*) refuse M4202 "'$program' is not a program's name" ;; esac
    find_process "$program" "$process"
    [ -z "$odd" ] || refuse M4202 "$odd does not hold a process number"
    if [ -z "$pid" ]; then
        answer "$process is not running: looked for$looked"
        return 0
    fi
    is_program || refuse M4202 "process $pid is $comm, not $program; it was not signalled"
    is_reachable
    case $kind in
    signal-hup-master) hang_up_master ;;
    signal-usr1) restart_gracefully ;;
    signal-hup) send HUP 1 ;;
    watch) ;;
    *) refuse M4202 "'$kind' is not a way to reload" ;;
    esac
}

# The whole configuration, as the master reads it: another's default server at our port shows only here.
hang_up_master() {
    [ "$owner" = "$uid" ] || refuse M4202 "process $pid belongs to user $owner, so its configuration cannot be tested;\
 it was not signalled"
    set --
    words=$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null)
    option=
    for one in $words; do
        case $option$one in
        -c/* | -p/*) ! is_below "${one#/}" || set -- "$@" "$option" "$one" ;;
        esac
        option=$one
    done
    try nginx -t -q "$@"
    [ "$status" = 0 ] || refuse M4203 "nginx (process $pid) would refuse its configuration; it was not signalled$NL$said"
    before=$(workers)
    if [ -n "$unit" ]; then
        said=$(timeout -k 2 "$SECONDS_FOR_A_PROGRAM" systemctl reload -- "$unit" 2>&1) ||
            refuse M4203 "systemctl reload $unit was refused; nginx keeps what it had$NL$said"
    else
        send HUP 1
    fi
    now
    end=$((now + SECONDS_FOR_A_PROGRAM))
    polls=0
    until replaced "$before" "$(workers)"; do
        now
        [ "$now" -lt "$end" ] ||
            refuse M4203 "nginx (process $pid) did not take up the new configuration within $SECONDS_FOR_A_PROGRAM s${NL}\
its master kept the old workers, which means that it refused what it read"
        wait_a_moment
    done
    sleep 0.05
}

# A busy machine is not made busier by looking at it all the time.
wait_a_moment() {
    polls=$((polls + 1))
    case $polls in
    1 | 2) sleep 0.02 ;;
    3 | 4) sleep 0.05 ;;
    *) sleep 0.1 ;;
    esac
}

# Workers that still accept connections.
workers() {
    for one in $(children "$pid"); do
        title=
        { IFS= read -r title <"/proc/${one%:*}/cmdline"; } 2>/dev/null
        case $title in
        *"worker process"*"shutting down"*) ;;
        *"worker process"*) printf '%s ' "$one" ;;
        esac
    done
}

# replaced BEFORE NOW: there is somebody now, and nobody of those before.
replaced() {
    [ -n "$2" ] || return 1
    for one in $2; do
        case " $1" in *" $one "*) return 1 ;; esac
    done
}

sockets_of() {
    set +f
    for one in /proc/"$1"/fd/*; do
        readlink -- "$one"
    done 2>/dev/null | sed -n 's/^socket:\[\([0-9]*\)\]$/\1/p'
    set -f
}

# A graceful restart that fails ends the whole server. So its own configuration is tested first, by its own arguments.
restart_gracefully() {
    test_own_configuration
    before=$(children "$pid")
    send USR1 10
    now
    end=$((now + SECONDS_FOR_A_PROGRAM))
    polls=0
    until replaced "$before" "$(accepting)"; do
        now
        started "$pid" >/dev/null ||
            refuse M4205 "Apache (process $pid) ended when it was to take up the new configuration"
        [ "$now" -lt "$end" ] ||
            refuse M4203 "Apache (process $pid) did not take up the new configuration within $SECONDS_FOR_A_PROGRAM s${NL}\
children with the old configuration still accept connections"
        wait_a_moment
    done
    sleep 0.05
}

test_own_configuration() {
    found=$(apache_program) || refuse M4202 "the program of process $pid is not there to test its configuration"
    [ "/proc/$pid/exe" -ef "$found" ] && [ "$owner" = "$uid" ] ||
        refuse M4202 "process $pid runs another program than $found, or belongs to another user, so its configuration\
 cannot be tested; it was not signalled"
    said=$(own_test 2>&1 | tail -c 16384)
    case $said in
    *"${NL}status 0" | "status 0") ;;
    *) refuse M4203 "Apache (process $pid) would refuse its configuration; it was not signalled$NL$said" ;;
    esac
}

# In a subshell of its own: it takes on the environment of the process, by a builtin, so that no list of arguments shows it.
own_test() (
    IFS=$NL
    for one in $(tr '\0' '\n' <"/proc/$pid/environ"); do
        name=${one%%=*}
        case $name in '' | "$one" | LD_* | [!A-Za-z_]* | *[!A-Za-z0-9_]*) continue ;; esac
        case $name in PATH | LC_ALL | IFS | PPID | UID | EUID | OPTIND | BASH* | SHELLOPTS) continue ;; esac
        # shellcheck disable=SC2163
        export "$one"
    done
    words=$(tr '\0' '\n' <"/proc/$pid/cmdline" | tail -n +2)
    set --
    skip=
    for one in $words; do
        case $skip$one in
        k*) skip= ;;
        dFOREGROUND) skip= ;;
        d*) set -- "$@" -D "$one" && skip= ;;
        -k) skip=k ;;
        -D) skip=d ;;
        -k* | -X | -DFOREGROUND) ;;
        *) set -- "$@" "$one" ;;
        esac
    done
    unset IFS
    timeout -k 2 "$SECONDS_FOR_A_PROGRAM" "$found" -t "$@" 3<&- 4>&- 9>&-
    printf '\nstatus %s' $?
)

# Children with a listening socket open. One of a single thread that serves somebody does not go back to it.
accepting() {
    doors=' '
    for one in $(listening "$pid" | sed -E 's/^ *([^ ]+ +){9}([0-9]+).*/\2/'); do
        doors="$doors$one "
    done
    for child in $(children "$pid"); do
        has=''
        other=''
        for one in $(sockets_of "${child%:*}"); do
            case $doors in *" $one "*) has=1 ;; *) other=1 ;; esac
        done
        threads=$(sed -n 's/^Threads:[[:space:]]*//p' "/proc/${child%:*}/status" 2>/dev/null)
        [ -z "$has" ] || { [ "$threads" = 1 ] && [ -n "$other" ]; } || printf '%s ' "$child"
    done
}

# --- calls ----------------------------------------------------------------------------------------------------------

# One call as a service of this host makes it, with its own key: SERVICE RELEASE ANCHORS ADDRESS PORT NAME PROTOCOL.
# ANCHORS is a file of the release, or - for the payload. Answers with how openssl ended, what it read and what it said.
verb_call() {
    release_of "$1" "$2"
    release=$what
    case $4 in '' | -* | *[!0-9A-Za-z.:-]*) exit 3 ;; *:*) address=[$4]:$5 ;; *) address=$4:$5 ;; esac
    case $5 in '' | *[!0-9]*) exit 3 ;; esac
    name=$6
    case $name in '' | -* | *[!0-9A-Za-z.:-]*) exit 3 ;; esac
    case $7 in 1.2) version=-tls1_2 ;; 1.3) version=-tls1_3 ;; *) exit 3 ;; esac
    case $3 in
    -) anchors=./anchors.pem ;;
    *) is_below "$3" && anchors=$release/$3 ;;
    esac
    check_folder
    doing=call what=$address
    [ "$3" != - ] || receive_into ./anchors.pem "$rest"
    set -- -connect "$address" -CAfile "$anchors" -no-CApath -verify_return_error "$version" \
        -cert "$release/tls.crt" -key "$release/tls.key"
    case $(openssl version) in "OpenSSL 1."*) ;; *) set -- "$@" -no-CAstore ;; esac
    case $name in
    *[!0-9.:]*) set -- "$@" -servername "$name" -verify_hostname "$name" ;;
    *) set -- "$@" -noservername -verify_ip "$name" ;;
    esac
    printf 'GET / HTTP/1.1\r\nHost: %s\r\nUser-Agent: mtlsctl\r\nConnection: close\r\n\r\n' "$name" >./request
    timeout -k 2 "$SECONDS_FOR_A_PROGRAM" env -i "LC_ALL=$LC_ALL" "PATH=$PATH" openssl s_client -quiet "$@" \
        <./request >./answer 2>./said 3<&- 4>&- 9>&-
    status=$?
    answer "$status"
    answer "$(head -c 8192 ./answer | base64 -w 0)"
    answer "$(tail -c 8192 ./said | tr -d '\000')"
}

# --- the loop -------------------------------------------------------------------------------------------------------

while IFS= read -r line <&3; do
    verb=${line%% *}
    line=${line#* }
    argc=${line%% *}
    rest=${line#* }
    case $argc in '' | *[!0-9]* | ?????*) exit 3 ;; esac
    case $rest in '' | *[!0-9]* | ?????????*) exit 3 ;; esac
    set --
    while [ "$argc" -gt 0 ]; do
        IFS= read -r line <&3 || exit 3
        set -- "$@" "$line"
        argc=$((argc - 1))
    done
    begun=''
    doing='do'
    what=it
    case $verb in
    lock)
        lock "$@"
        continue
        ;;
    hello) [ $# -eq 2 ] && keeps=$2 || exit 3 ;;
    claim | holder | facts | sockets | \
        has_key | expect_key | read_key | borrow_key | put_key | delete_keys_except | request_key | sign_with_key | \
        carry | stage | has_release | list_release | read_release | releases | delete_releases | delete_service | \
        read_pointer | switch_file | switch_current | remove_pointer | \
        check_nginx | check_node | check_apache | reload | call) ;;
    *) exit 3 ;;
    esac
    # What was asked for has been read to its end when a verb has ended well or been refused; after all else, stop.
    (
        "verb_$verb" "$@"
        finish
    )
    [ $? -le 1 ] || exit 3
done
