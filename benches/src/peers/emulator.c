// A plugin of qemu (its emulation, not KVM): counts the instructions that each core of the guest executes, and answers
// each byte on a socket with one line in decimal, "USER KERNEL USER KERNEL ..", a pair for each core.
//
// Arguments: socket=PATH, a socket of qemu's own (a character device), which leads to a serial port of the guest.
//
// The proxy's core gets less of this machine than the others, so that it is the one that the others wait for.
//
// A block of instructions is counted when it is entered. What may be counted too much: the rest of a block that a fault
// ends early, some tens of instructions. Where qemu executes a repeated string instruction step by step (`rep movs`), it
// is counted once, as processors do. Each counter has one writer, the thread of its core.
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

// Of qemu's include/qemu/qemu-plugin.h, version 1, which Debian does not ship.
#define EXPORT __attribute__((visibility("default")))
typedef uint64_t qemu_plugin_id_t;
struct qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *),
                                          enum qemu_plugin_cb_flags, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
EXPORT int qemu_plugin_version = 1;

// What is known of a translated block: how many instructions, whether Linux has its own code at such addresses, and where
// its first and its last are if they repeat (or 0).
struct block {
    uint64_t instructions, repeats_first, repeats_last;
    bool is_kernel;
};

// Of one core: instructions so far, and where the last block's last one repeats (or 0).
enum { CORES = 8, PROXY_CORE = 1, PROXY_NICE = 5 };
static struct {
    _Alignas(128) uint64_t instructions[2];
    uint64_t repeats;
    bool has_begun;
} cores[CORES];

static struct sockaddr_un address = {.sun_family = AF_UNIX};

static bool is_prefix(uint8_t byte)
{
    return byte == 0x66 || byte == 0x67 || (byte & 0xf0) == 0x40; // operand size, address size, REX
}

// ins, outs, movs, cmps, stos, lods, scas.
static bool is_string(uint8_t byte)
{
    return (byte >= 0x6c && byte <= 0x6f) || (byte >= 0xa4 && byte <= 0xa7) || (byte >= 0xaa && byte <= 0xaf);
}

// Where the instruction is, if it is a string instruction with a repeat prefix; else 0.
static uint64_t repeated(const struct qemu_plugin_insn *instruction)
{
    const uint8_t *byte = qemu_plugin_insn_data(instruction);
    const uint8_t *end = byte + qemu_plugin_insn_size(instruction);
    bool repeats = false;
    for (; byte < end && (is_prefix(*byte) || *byte == 0xf2 || *byte == 0xf3); byte++)
        repeats |= *byte >= 0xf2;
    return repeats && byte < end && is_string(*byte) ? qemu_plugin_insn_vaddr(instruction) : 0;
}

// On the core's own thread, before its first block.
static void begin(unsigned core)
{
    cores[core].has_begun = true;
    if (core == PROXY_CORE)
        setpriority(PRIO_PROCESS, 0, PROXY_NICE);
}

static void on_block(unsigned core, void *data)
{
    const struct block *block = data;
    if (core >= CORES)
        return;
    if (!cores[core].has_begun)
        begin(core);
    // The next step of the instruction that the block before had begun.
    bool goes_on = block->repeats_first != 0 && block->repeats_first == cores[core].repeats;
    cores[core].repeats = block->repeats_last;
    uint64_t *count = &cores[core].instructions[block->is_kernel];
    __atomic_store_n(count, *count + block->instructions - goes_on, __ATOMIC_RELAXED);
}

static void on_translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t count = qemu_plugin_tb_n_insns(tb);
    // Lives as long as qemu: nothing says when the block is gone.
    struct block *block = malloc(sizeof *block);
    if (block == NULL || count == 0)
        abort();
    block->instructions = count;
    block->is_kernel = qemu_plugin_insn_vaddr(qemu_plugin_tb_get_insn(tb, 0)) >> 63;
    block->repeats_first = repeated(qemu_plugin_tb_get_insn(tb, 0));
    block->repeats_last = repeated(qemu_plugin_tb_get_insn(tb, count - 1));
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, block);
}

static void *answer(void *unused)
{
    int line = socket(AF_UNIX, SOCK_STREAM, 0);
    while (connect(line, (struct sockaddr *)&address, sizeof address) != 0)
        usleep(10000); // qemu makes its end later
    char asked, text[2 * CORES * 21 + 1];
    while (read(line, &asked, 1) == 1) {
        int length = 0;
        for (int at = 0; at < 2 * CORES; at++)
            length += sprintf(text + length, "%" PRIu64 "%c",
                              __atomic_load_n(&cores[at / 2].instructions[at % 2], __ATOMIC_RELAXED),
                              at < 2 * CORES - 1 ? ' ' : '\n');
        if (write(line, text, length) != length)
            break;
    }
    return unused;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int count, char **arguments)
{
    (void)info;
    static const char key[] = "socket=";
    if (count != 1 || strncmp(arguments[0], key, sizeof key - 1) != 0 ||
        strlen(arguments[0] + sizeof key - 1) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, arguments[0] + sizeof key - 1);
    pthread_t thread;
    if (pthread_create(&thread, NULL, answer, NULL) != 0)
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translated);
    return 0;
}
