#!/bin/busybox sh
# The first process of a test guest: sets the guest up, runs a job under the agent, and writes to the console what the
# agent said. Words on the kernel's command line: with BARE=1 the guest lacks what the agent can provide for itself,
# with TIER_B=1 the agent is not to use security functions, with HOOKS=1 only prototypes are compared, with MICRO=1 single
# operations are measured.

export PATH=/usr/bin:/bin HOME=/root BUILDTRAIL_LOG=info RUST_BACKTRACE=0

# Writes a file in a form that the host finds in the console's output.
section() { # NAME FILE [STATUS]
    echo "@@begin $1"
    cat "$2"
    echo
    echo "@@end $1 ${3:-0}"
}

# Waits until a command succeeds, or 30 seconds.
await() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || return 1
        sleep 0.1
    done
}

end() {
    echo "@@done"
    reboot -f
}

/bin/busybox --install -s /bin
mkdir -p /proc /sys /tmp /var/lib /srv /run/standins /run/ssh-job
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
if [ -z "$BARE" ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mount -t tracefs tracefs /sys/kernel/tracing
fi
# Messages of the kernel would end up between the lines that the host reads; a panic is shown nevertheless.
echo 0 > /proc/sys/kernel/printk
ip link set lo up
ln -s /proc/self/fd /dev/fd
ln /runner/bin/Runner.Worker /runner/bin/Runner.Listener
uname -r > /run/release
# The firmware leaves the cursor in the middle of a line.
echo
section release /run/release

# All rows, outside a job and in one; the agent's number is in /run/agent.pid.
measure() { # without|with
    evasion micro /srv/micro $(cat /run/agent.pid) $(cat /etc/micro-rows) > /run/outside 2>&1
    section outside-$1 /run/outside $?
    env -i PATH=$PATH HOME=$HOME /runner/bin/Runner.Listener run /runner/micro.json > /run/micro.log 2>&1
    section inside-$1 /run/inside $?
}

if [ -n "$MICRO" ]; then
    mkdir -p /srv/micro
    evasion micro prepare /srv/micro
    cd /runner
    echo 0 > /run/agent.pid
    measure without
    buildtrail-agent run --config /etc/buildtrail-agent/micro.toml --output json --ready-file /run/ready \
        > /run/events 2> /run/agent.log &
    echo $! > /run/agent.pid
    await test -e /run/ready
    measure with
    kill -TERM $(cat /run/agent.pid)
    wait $(cat /run/agent.pid)
    section agent-log /run/agent.log $?
    grep -c '"secret_access"' /run/events > /run/secrets
    section secrets /run/secrets
    end
fi

buildtrail-agent check --prototypes > /run/prototypes 2>&1
section prototypes /run/prototypes $?
[ -z "$HOOKS" ] || end

[ -z "$TIER_B" ] || printf '\n[sensor]\nhighest_tier = "B"\n' >> /etc/buildtrail-agent/agent.toml
evasion prepare /srv/evasion
BUILDTRAIL_LOG=debug buildtrail-agent check > /run/check 2> /run/check.log
status=$?
section check /run/check $status
tail -n 400 /run/check.log > /run/check.tail
grep 'program verified' /run/check.log > /run/verifier
section verifier /run/verifier
section check-log /run/check.tail
[ $status -eq 0 ] || end

standins /run/standins > /run/standins/out 2> /run/standins/log &
standins=$!
await grep -qs ready /run/standins/out || section trouble /run/standins/log
ssh-agent -a /run/ssh-job/agent.1 > /dev/null

buildtrail-agent run --output json --ready-file /run/ready > /run/events 2> /run/agent.log &
agent=$!
await test -e /run/ready

cat /root/.netrc > /dev/null
cd /runner
nsenter -t $standins -n -m env -i PATH=$PATH HOME=$HOME SSH_AUTH_SOCK=/run/ssh-job/agent.1 \
    /runner/bin/Runner.Listener run /runner/plan.json > /run/job.log 2>&1
section job /run/job.log $?
section results /srv/evasion/results
# The second job is over.
await grep -q '"run_id":"2".*job_finished' /run/events

kill -TERM $agent
wait $agent
status=$?
section agent-log /run/agent.log
section events /run/events $status
end
