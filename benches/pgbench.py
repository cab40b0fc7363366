#!/usr/bin/env python3
"""Backs up a pgbench database over generations, beside pg_dump alone, restic and borg. Prints a table of ratios.

usage: benches/pgbench.py PROGRAM [SCALE [GENERATIONS]]        (a release build of btw-backup; 50; 10)

Each generation updates 1 % of the accounts, at random, and appends 20,000 rows to the history. Needs PostgreSQL's server
programs; makes a cluster of its own below the temporary directory, on a Unix socket, and removes it. As root it runs the
server as `nobody`. Peers that are not installed are left out; they get the same dumps on their standard input.
"""
import glob, os, shutil, statistics, subprocess, sys, tempfile, time

program, scale, generations = os.path.abspath(sys.argv[1]), *(int(x) for x in (sys.argv[2:] + ["50", "10"][len(sys.argv) - 2 :])[:2])
BIN = max(glob.glob("/usr/lib/postgresql/*/bin"))
work = tempfile.mkdtemp(prefix="btw-pgbench-")
server_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
os.chmod(work, 0o755)
data = f"{work}/server"
os.mkdir(data)
if server_user:
    os.chown(data, 65534, 65534)
env = dict(os.environ, PGHOST=data, PGUSER="postgres", BTW_BACKUP_CONFIG_DIR=f"{work}/conf", RESTIC_PASSWORD="x",
           BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes", BORG_BASE_DIR=f"{work}/borg-home")

def run(*args, **more):
    return subprocess.run(args, check=True, env=env, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **more)

def timed(*args, **more):
    begun = time.monotonic()
    run(*args, **more)
    return time.monotonic() - begun

def size(path):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(path) for name in names)

def sql(text):
    run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", "bench", "-c", text)

run(*server_user, f"{BIN}/initdb", "-D", f"{data}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
options = f"-c unix_socket_directories={data} -c listen_addresses= -c fsync=off -c shared_buffers=512MB -c max_wal_size=8GB"
run(*server_user, f"{BIN}/pg_ctl", "-D", f"{data}/data", "-w", "-l", f"{data}/log", "-o", options, "start")
try:
    run("createdb", "bench")
    run(f"{BIN}/pgbench", "-i", "-q", "-s", str(scale), "bench")
    os.makedirs(f"{work}/conf", 0o700)
    os.mkdir(f"{work}/root", 0o700)
    with open(f"{work}/conf/config.toml", "w") as config:
        config.write(f'ROOT_PATH = "{work}/root"\n')
    peers = {}
    if shutil.which("restic"):
        run("restic", "-r", f"{work}/restic", "init", "-q")
        peers["restic"] = ["restic", "-r", f"{work}/restic", "backup", "-q", "--stdin", "--stdin-filename", "dump.sql"]
    if shutil.which("borg"):
        run("borg", "init", "-e", "none", f"{work}/borg")
        peers["borg"] = ["borg", "create", "--compression", "zstd,3", f"{work}/borg::g{{}}", "-"]
    changed, unchanged, other = [], [], {name: [] for name in peers}
    for generation in range(generations + 1):
        if generation:
            sql(f"UPDATE pgbench_accounts SET abalance = abalance + {generation} WHERE random() < 0.01")
            sql(f"INSERT INTO pgbench_history SELECT 1, 1, n, {generation}, '2026-01-01' FROM generate_series(1, 20000) n")
        alone = timed("pg_dump", "bench")
        taken = timed(program, "-q", "db", "bench", "bench")
        again = timed(program, "-q", "db", "bench", "bench")
        if generation:
            changed.append(taken / alone)
            unchanged.append(again / alone)
        dump = f"{work}/dump.sql"
        with open(dump, "wb") as out:
            subprocess.run([program, "restore", "bench", "-"], env=env, check=True, stdout=out)
        for name, command in peers.items():
            with open(dump, "rb") as source:
                other[name].append(timed(*(part.format(generation) for part in command), stdin=source))
        print(f"generation {generation}: pg_dump alone {alone:.2f} s, backup {taken:.2f} s, again {again:.2f} s, " +
              ", ".join(f"{name} from a file {times[-1]:.2f} s" for name, times in other.items()), flush=True)
    own = size(f"{work}/root/bench")
    print(f"dump {os.path.getsize(dump) / 1e6:.0f} MB, scale {scale}, {generations} generations; medians, lower is better")
    print(f"changed / pg_dump alone    {statistics.median(changed):.2f}   (target 1.15)")
    print(f"unchanged / pg_dump alone  {statistics.median(unchanged):.2f}   (target 1.10)")
    for name in peers:
        print(f"store / {name:<18} {own / size(f'{work}/{name}'):.2f}   ({own / 1e6:.1f} of {size(f'{work}/{name}') / 1e6:.1f} MB; target 0.25)")
    run("createdb", "oldest")
    with open(dump, "wb") as out:
        subprocess.run([program, "restore", "--at", "v1", "bench", "-"], env=env, check=True, stdout=out)
    run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-d", "oldest", "-f", dump)
    key = subprocess.run(["grep", "-m1", "-oP", r"^\\restrict \K.*", dump], stdout=subprocess.PIPE, text=True).stdout.strip()
    run("bash", "-c", 'cmp "$1" <(pg_dump ${2:+--restrict-key="$2"} oldest)', "-", dump, key)
    print("the oldest version loads, and pg_dump of it is the same, byte for byte")
finally:
    run(*server_user, f"{BIN}/pg_ctl", "-D", f"{data}/data", "-m", "immediate", "stop")
    shutil.rmtree(work)
