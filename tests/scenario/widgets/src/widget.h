#ifndef WIDGET_H
#define WIDGET_H

#define WIDGET_NAME_MAX 31

struct widget {
	char name[WIDGET_NAME_MAX + 1];
	unsigned price_cents;
};

/* Returns 0, or -1 when the name is empty or too long. */
int widget_init(struct widget *widget, const char *name, unsigned price_cents);

#endif
