// Shows programs a processor with AVX2 and nothing later (no AVX-512, VNNI, AMX), on one that has cpuid_fault in
// /proc/cpuinfo: their CPUID instructions fault, and are answered here.
//
//     cc -O2 -shared -fPIC -o /tmp/avx2.so tests/load/avx2.c
//     LD_PRELOAD=/tmp/avx2.so python -m tests.load.bench variant --model FOLDER
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

// Bits of leaf 7. Subleaf 0: AVX-512 (EBX, ECX, EDX), VNNI and AMX; subleaf 1: AVX-VNNI, BF16 and their kind.
#define AVX512_EBX (1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31)
#define AVX512_ECX (1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14)
#define AVX512_AMX_EDX (1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25)
#define LATER_EAX (1u << 4 | 1u << 5 | 1u << 21 | 1u << 23)
#define LATER_EDX (1u << 4 | 1u << 5 | 1u << 8 | 1u << 10 | 1u << 19)

static long allow_cpuid(unsigned long allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void answer(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *instruction = (const unsigned char *)registers[REG_RIP];
    if (instruction[0] != 0x0f || instruction[1] != 0xa2) { // a fault of the program's own
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    unsigned leaf = registers[REG_RAX], subleaf = registers[REG_RCX], a, b, c, d;
    allow_cpuid(1);
    __cpuid_count(leaf, subleaf, a, b, c, d);
    allow_cpuid(0);
    if (leaf == 7 && subleaf == 0) b &= ~AVX512_EBX, c &= ~AVX512_ECX, d &= ~AVX512_AMX_EDX;
    if (leaf == 7 && subleaf == 1) a &= ~LATER_EAX, d &= ~LATER_EDX;
    if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) a = b = c = d = 0; // AMX tiles, AVX10
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor(101))) static void begin(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    if (sigaction(SIGSEGV, &action, NULL) || allow_cpuid(0)) {
        static const char message[] = "avx2.c: this processor or system cannot make CPUID fault\n";
        _exit(write(2, message, sizeof message - 1) < 0 ? 2 : 1);
    }
}
