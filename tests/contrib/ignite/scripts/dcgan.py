import os
import sys
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ignite.engine import Engine, Events
from ignite.handlers import ModelCheckpoint, ProgressBar, Timer
from ignite.metrics import RunningAverage

NAMES = ["errD", "errG", "D_x", "D_G_z1", "D_G_z2"]


class Generator(nn.Module):
    def __init__(self, z_dim=16, nf=8):
        super().__init__()
        self.net = nn.Sequential(
            nn.ConvTranspose2d(z_dim, nf * 2, 4, 1, 0, bias=False),
            nn.BatchNorm2d(nf * 2),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(nf * 2, nf, 4, 2, 1, bias=False),
            nn.BatchNorm2d(nf),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(nf, 3, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, x):
        return self.net(x)


class Discriminator(nn.Module):
    def __init__(self, nf=8):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, nf, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(nf, nf * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(nf * 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(nf * 2, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.net(x).view(-1)


def main(output_dir, batch_size=16, epochs=2, z_dim=16):
    torch.manual_seed(7)
    images = TensorDataset(torch.rand(112, 3, 16, 16), torch.zeros(112))
    loader = DataLoader(images, batch_size=batch_size, shuffle=True, drop_last=True)
    net_g, net_d = Generator(z_dim), Discriminator()
    bce = nn.BCELoss()
    optimizer_g = torch.optim.Adam(net_g.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizer_d = torch.optim.Adam(net_d.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real_labels, fake_labels = torch.ones(batch_size), torch.zeros(batch_size)

    def step(engine, batch):
        real, _ = batch
        net_d.zero_grad()
        output = net_d(real)
        loss_real = bce(output, real_labels)
        d_x = output.mean().item()
        loss_real.backward()
        fake = net_g(torch.randn(batch_size, z_dim, 1, 1))
        output = net_d(fake.detach())
        loss_fake = bce(output, fake_labels)
        d_g_z1 = output.mean().item()
        loss_fake.backward()
        optimizer_d.step()

        net_g.zero_grad()
        output = net_d(fake)
        loss_g = bce(output, real_labels)
        loss_g.backward()
        optimizer_g.step()
        values = [(loss_real + loss_fake).item(), loss_g.item(), d_x, d_g_z1, output.mean().item()]
        return dict(zip(NAMES, values))

    trainer = Engine(step)
    checkpoint_handler = ModelCheckpoint(output_dir, "networks", n_saved=10, require_empty=False)
    timer = Timer(average=True)
    for name in NAMES:
        RunningAverage(alpha=0.98, output_transform=lambda x, name=name: x[name]).attach(trainer, name)
    pbar = ProgressBar()
    pbar.attach(trainer, metric_names=NAMES)

    @trainer.on(Events.ITERATION_COMPLETED(every=3))
    def print_logs(engine):
        names = ["iteration", *engine.state.metrics.keys()]
        values = [str(engine.state.iteration), *(str(round(value, 5)) for value in engine.state.metrics.values())]
        message = f"[{engine.state.epoch}/{epochs}][{engine.state.iteration % len(loader)}/{len(loader)}]"
        for name, value in zip(names, values):
            message += f" | {name}: {value}"
        pbar.log_message(message)
        print(message)

    trainer.add_event_handler(
        event_name=Events.EPOCH_COMPLETED, handler=checkpoint_handler, to_save={"netG": net_g, "netD": net_d}
    )
    timer.attach(
        trainer,
        start=Events.EPOCH_STARTED,
        resume=Events.ITERATION_STARTED,
        pause=Events.ITERATION_COMPLETED,
        step=Events.ITERATION_COMPLETED,
    )

    @trainer.on(Events.EPOCH_COMPLETED)
    def print_times(engine):
        pbar.log_message(f"Epoch {engine.state.epoch} done. {0 < timer.value() < 10} {timer.step_count}")
        timer.reset()

    @trainer.on(Events.EXCEPTION_RAISED)
    def handle_exception(engine, e):
        if isinstance(e, KeyboardInterrupt) and (engine.state.iteration > 1):
            engine.terminate()
            warnings.warn("KeyboardInterrupt caught. Exiting gracefully.")
            checkpoint_handler(engine, {"netG_exception": net_g, "netD_exception": net_d})
        else:
            raise e

    trainer.run(loader, epochs)
    print(sorted(os.listdir(output_dir)))
    print(sorted(torch.load(checkpoint_handler.last_checkpoint)))


main(sys.argv[1])
