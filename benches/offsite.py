#!/usr/bin/env python3
"""Copies a store to a local S3 server: btw-backup beside rclone and s3cmd.

    benches/offsite.py target/release/btw-backup SERVER [MIB [RUNS]]

SERVER is the program of crates.io's s3s-fs (`cargo install s3s-fs --version 0.14.1 --features binary`); rclone and s3cmd
come from Debian. The store is that of a disk image made of real files, MIB large (1024). Each tool copies the same store, into
a place of its own, in turns, RUNS (3) times: first all of it, then after one more generation, in which 1 % of the image's
pages are written at random. A copy is done when the server's files are on the disk. What is sent is counted by what the
server has afterwards.
"""
import os, random, shutil, signal, socket, statistics, subprocess, sys, tempfile, time

KEY, SECRET = 'AKIDBENCH', 'not-a-secret'


def main():
    program, server = map(os.path.abspath, sys.argv[1:3])
    mib = int(sys.argv[3]) if len(sys.argv) > 3 else 1024
    runs = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    with tempfile.TemporaryDirectory(prefix='offsite-') as work:
        bench(work, program, server, mib, runs)


def bench(work, program, server, mib, runs):
    image = make_image(work, mib)
    store = os.path.join(work, 'root/disk')
    back_up(program, work, image)
    first = size(store)
    port = free_port()
    bucket = os.path.join(work, 'server/bucket')
    os.makedirs(bucket)
    running = subprocess.Popen([server, '--host', '127.0.0.1', '--port', str(port), '--access-key', KEY,
                                '--secret-key', SECRET, os.path.join(work, 'server')],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        tools = {name: tool for name, tool in make_tools(work, program, store, port).items() if shutil.which(name) or name == 'btw-backup'}
        times = {name: {'first': [], 'next': []} for name in tools}
        for run in range(runs):
            for name, tool in tools.items():
                times[name]['first'].append(timed(tool, f'{name}-{run}'))
        before = names(store)
        generation(image)
        back_up(program, work, image)
        grown = sum(os.path.getsize(os.path.join(store, path)) for path in names(store) - before if counts(path))
        sent = {}
        for run in range(runs):
            for name, tool in tools.items():
                place = os.path.join(bucket, f'{name}-{run}')
                had = names(place)
                try:
                    times[name]['next'].append(timed(tool, f'{name}-{run}'))
                except subprocess.CalledProcessError:
                    # s3cmd wants ETags in listings, which s3s-fs does not give.
                    continue
                sent[name] = sum(os.path.getsize(os.path.join(place, path)) for path in names(place) - had)
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait()
    report(times, first, grown, sent)


def report(times, first, grown, sent):
    print(f'store {first / 1e6:.0f} MB; one generation more: new files {grown / 1e6:.1f} MB')
    peers = [name for name in times if name != 'btw-backup']
    for step in ('first', 'next'):
        medians = {name: statistics.median(times[name][step]) for name in times if times[name][step]}
        text = ', '.join(f'{name} {seconds:.2f} s' for name, seconds in medians.items())
        best = min(medians[name] for name in peers if name in medians) if peers else float('nan')
        print(f'{step}: {text}; ratio to the best peer {medians["btw-backup"] / best:.2f}')
    for name, count in sent.items():
        print(f'sent for the generation by {name}: {count / 1e6:.2f} MB, {count / grown:.3f} of what is new in the store')


def make_image(work, mib):
    """A file system of real files, about half full."""
    tree, image = os.path.join(work, 'tree'), os.path.join(work, 'image')
    os.mkdir(tree)
    left = mib * 1024 * 1024 // 2
    for dir_, _, files in os.walk('/usr/lib'):
        for name in files:
            path = os.path.join(dir_, name)
            if os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > left:
                continue
            left -= os.path.getsize(path) + 4096
            target = os.path.join(tree, os.path.relpath(path, '/usr/lib'))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copyfile(path, target)
        if left < 1 << 20:
            break
    subprocess.run(['mkfs.ext4', '-q', '-d', tree, image, f'{mib}M'], check=True)
    shutil.rmtree(tree)
    return image


def generation(image):
    chance = random.Random(1)
    pages = os.path.getsize(image) // 4096
    with open(image, 'r+b') as file:
        for _ in range(pages // 100):
            file.seek(chance.randrange(pages) * 4096)
            file.write(chance.randbytes(4096))


def environment(work):
    return {'HOME': work, 'PATH': os.environ['PATH'], 'AWS_ACCESS_KEY_ID': KEY, 'AWS_SECRET_ACCESS_KEY': SECRET}


def back_up(program, work, image):
    root = os.path.join(work, 'root')
    os.makedirs(root, exist_ok=True)
    config = os.path.join(work, 'conf')
    os.makedirs(config, exist_ok=True)
    with open(os.path.join(config, 'config.toml'), 'w') as file:
        file.write(f'ROOT_PATH = "{root}"\n')
    subprocess.run([program, '-q', '--config-dir', config, 'fs', '--init', image, 'disk'], check=True, env=environment(work))


def make_tools(work, program, store, port):
    endpoint = f'http://127.0.0.1:{port}'

    def ours(place):
        config = os.path.join(work, 'conf')
        shutil.rmtree(os.path.join(config, 'sync'), ignore_errors=True)
        with open(os.path.join(config, 'config.toml'), 'w') as file:
            file.write(f'ROOT_PATH = "{work}/root"\n[remote.s3]\nurl = "s3://bucket/{place}"\nendpoint = "{endpoint}"\n')
        return [program, '-q', '--config-dir', config, 'sync', '--full']

    def rclone(place):
        return ['rclone', 'sync', store, f'there:bucket/{place}/disk/', '--exclude', '/cache/**', '--config', '/dev/null']

    def s3cmd(place):
        config = os.path.join(work, 's3cfg')
        with open(config, 'w') as file:
            file.write(f'[default]\naccess_key = {KEY}\nsecret_key = {SECRET}\nhost_base = 127.0.0.1:{port}\n'
                       f'host_bucket = 127.0.0.1:{port}\nuse_https = False\n')
        return ['s3cmd', '-c', config, '-q', 'sync', '--exclude', 'cache/*', store + '/', f's3://bucket/{place}/disk/']

    more = {'RCLONE_CONFIG_THERE_TYPE': 's3', 'RCLONE_CONFIG_THERE_PROVIDER': 'Other', 'RCLONE_CONFIG_THERE_ENV_AUTH': 'true',
            'RCLONE_CONFIG_THERE_ENDPOINT': endpoint}

    def run(command):
        return lambda place: subprocess.run(command(place), check=True, env={**environment(work), **more}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return {'btw-backup': run(ours), 'rclone': run(rclone), 's3cmd': run(s3cmd)}


def timed(tool, place):
    os.sync()
    begin = time.monotonic()
    tool(place)
    os.sync()
    return time.monotonic() - begin


def names(place):
    return {os.path.relpath(os.path.join(dir_, name), place) for dir_, _, files in os.walk(place) for name in files}


def counts(path):
    return not path.startswith(('cache/', 'lock', 'readers', 'log.txt'))


def size(place):
    return sum(os.path.getsize(os.path.join(place, path)) for path in names(place))


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def wait_for(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', port)) == 0:
                return
        time.sleep(0.05)
    sys.exit('the server does not answer')


main()
